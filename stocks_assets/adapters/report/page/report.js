"use strict";
(async () => {
  const LWC = window.LightweightCharts;
  const $ = (id) => document.getElementById(id);
  const main = $("content");
  const DAY = 86400;

  // Data: text that the page carries, unpacked when it is needed.

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }
  function decode({ k, d }) {
    const scale = 10 ** k;
    let last = 0;
    return d.map((step) => (step === null ? null : (last += step) / scale));
  }
  if (!("DecompressionStream" in window)) {
    main.replaceChildren(h("p", { class: "card" }, "This browser is too old for this page: it needs one of 2023 or later."));
    return;
  }
  const page = await unpack($("page").textContent);
  const bundles = new Map([...document.querySelectorAll("script[data-ticker]")].map((s) => [s.dataset.ticker, s]));
  const FIELDS = ["ticker", "company", "sector", "currency", "date", "close", "change", "d1", "w1", "m1", "m3", "m6", "y1", "high", "low",
    "sma50", "sma200", "rsi", "volumeRatio", "volatility", "beta", "sharpe", "drawdown", "maxDrawdown", "volume", "first", "spark", "health"];
  const HEALTH = ["rejected", "refused", "missing", "unavailable", "differences", "restatements", "failure", "behind"];
  const named = (names, values) => Object.fromEntries(names.map((name, i) => [name, values[i]]));
  const rows = page.rows.map((values) => {
    const row = named(FIELDS, values);
    row.health = named(HEALTH, row.health);
    return row;
  });
  const byTicker = new Map(rows.map((row) => [row.ticker, row]));

  // Elements: everything that comes from data is put in place as text.

  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(element.style, value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }
  const NS = "http://www.w3.org/2000/svg";
  function spark(text, rises) {
    const svg = document.createElementNS(NS, "svg");
    svg.setAttribute("class", `spark ${rises ? "up" : "down"}`);
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    if (text.length > 1) {
      const path = document.createElementNS(NS, "path");
      const points = [...text].map((c, i) => `${((i * 100) / (text.length - 1)).toFixed(1)} ${(28 - ((c.charCodeAt(0) - 33) / 93) * 26).toFixed(1)}`);
      path.setAttribute("d", `M${points.join("L")}`);
      svg.append(path);
    }
    return svg;
  }

  // Numbers

  const known = (value) => value !== null && value !== undefined;
  const fixed = (digits) => new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const F0 = fixed(0), F1 = fixed(1), F2 = fixed(2), F4 = fixed(4);
  const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
  const price = (v) => (known(v) ? (Math.abs(v) < 1 ? F4 : F2).format(v) : "–");
  const percent = (v, digits = 1) => (known(v) ? `${fixed(digits).format(Math.abs(v * 100))} %` : "–");
  const signed = (v, digits = 1) => {
    if (!known(v)) return "–";
    const text = percent(v, digits);
    return /[1-9]/.test(text) ? `${v > 0 ? "+" : "−"}${text}` : text;
  };
  const tone = (v) => (v > 0 ? "up" : v < 0 ? "down" : "dim");
  const amount = (v) => new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 6 }).format(v);
  const move = (v, digits) => h("span", { class: known(v) ? tone(v) : "dim" }, signed(v, digits));
  const plain = (format) => (v) => (known(v) ? format.format(v) : "–");
  const plural = (n, one, many = `${one}s`) => `${F0.format(n)} ${n === 1 ? one : many}`;

  // Look: the theme that the system has, or the one chosen here.

  const store = { get: (k) => { try { return localStorage.getItem(k); } catch { return null; } },
    set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* the page works without */ } } };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const setTheme = () => { document.documentElement.dataset.theme = store.get("theme") || (dark.matches ? "dark" : "light"); };
  setTheme();
  dark.addEventListener("change", () => { setTheme(); show(); });
  $("theme").addEventListener("click", () => {
    store.set("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    setTheme();
    show();
  });
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // Charts

  let charts = [];
  // What draws once its place is in the page.
  let drawings = [];
  function chart(container, height, more = {}) {
    container.style.height = `${height}px`;
    const made = LWC.createChart(container, {
      autoSize: true,
      layout: { background: { type: "solid", color: "transparent" }, textColor: colour("dim"), fontSize: 11.5,
        fontFamily: getComputedStyle(document.body).fontFamily, attributionLogo: false,
        panes: { separatorColor: colour("line"), separatorHoverColor: colour("soft"), enableResize: false } },
      grid: { vertLines: { color: colour("soft") }, horzLines: { color: colour("soft") } },
      rightPriceScale: { borderVisible: false }, timeScale: { borderVisible: false, fixLeftEdge: true, fixRightEdge: true, minBarSpacing: 0.1 },
      crosshair: { mode: LWC.CrosshairMode.Normal },
      handleScroll: { mouseWheel: false, pressedMouseMove: true, horzTouchDrag: true, vertTouchDrag: false },
      handleScale: { mouseWheel: false, pinch: true, axisPressedMouseMove: false },
      localization: { locale: "en-US" }, ...more });
    charts.push(made);
    return made;
  }
  const quiet = { priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false };
  const points = (times, values) => times.map((time, i) => (known(values[i]) ? { time, value: values[i] } : { time }));
  const dated = (text) => Date.parse(`${text}T00:00:00Z`) / 1000;
  const dayOf = (time) => new Date(time * 1000).toISOString().slice(0, 10);

  function segments(options, chosen, choose, label) {
    const box = h("div", { class: "seg", role: "group", "aria-label": label });
    for (const [key, text] of options) {
      box.append(h("button", { type: "button", "aria-pressed": String(key === chosen), onclick: () => {
        for (const other of box.children) other.setAttribute("aria-pressed", "false");
        box.children[options.findIndex(([one]) => one === key)].setAttribute("aria-pressed", "true");
        choose(key);
      } }, text));
    }
    return box;
  }
  function card(size, title, content, aside) {
    return h("section", { class: `card ${size}` }, title && h("header", {}, h("h2", {}, title), aside && h("div", { class: "right" }, aside)), content);
  }

  // Where a ticker's page is: in this file, or in another one beside it.

  const here = page.files.indexOf(page.file);
  const places = new Map(page.directory.map(([ticker, , file]) => [ticker, file]));
  const linkTo = (ticker) => {
    const file = places.get(ticker);
    return `${file === here || file === undefined ? "" : page.files[file]}#/${encodeURIComponent(ticker)}`;
  };
  const home = page.file === page.home ? "#/" : `${page.home}#/`;
  $("home").setAttribute("href", home);

  // The overview

  const SPANS = [["d1", "1D"], ["w1", "1W"], ["m1", "1M"], ["m3", "3M"], ["y1", "1Y"]];
  const current = rows.filter((row) => row.date === page.session);

  function overview() {
    document.title = `Market report, ${page.session || "no session yet"}`;
    const market = page.overview;
    if (!rows.length) {
      return h("div", { class: "grid" }, card("", "Nothing to show yet", h("p", { class: "empty" }, "Gold has no prices of any ticker. Add some with: stocks tickers add AAPL, then: stocks refresh.")));
    }
    return h("div", { class: "grid" },
      h("h1", { style: { position: "absolute", left: "-9999px" } }, "Market overview"),
      tiles(market), movers(market), sectors(market), breadth(market), troubles(market), everyTicker());
  }

  function tiles(market) {
    const last = market.breadth.at(-1);
    const tile = (label, value, sub) => h("div", { class: "tile" }, h("div", { class: "label" }, label), h("div", { class: "value" }, value), h("div", { class: "sub" }, sub));
    const [session, have, expected] = market.session;
    const found = [];
    if (last) {
      const [, count, up, down, same, highs, lows, ranged, above50, above200] = last;
      const bar = h("div", { class: "split", role: "img", "aria-label": `${up} closed higher, ${down} lower, ${same} the same` },
        h("i", { style: { flex: String(up), background: "var(--up)" } }), h("i", { style: { flex: String(same + Math.max(0, count - up - down - same)), background: "var(--line)" } }), h("i", { style: { flex: String(down), background: "var(--down)" } }));
      found.push(tile("Closed higher and lower", [h("span", { class: "up" }, F0.format(up)), h("span", { class: "dim" }, " / "), h("span", { class: "down" }, F0.format(down))], bar));
      found.push(tile("Above their 200-day average", percent(above200, 0), `above the 50-day one: ${percent(above50, 0)}`));
      found.push(tile("New 52-week highs and lows", [h("span", { class: "up" }, F0.format(highs)), h("span", { class: "dim" }, " / "), h("span", { class: "down" }, F0.format(lows))], `of ${F0.format(ranged)} with a year of sessions`));
    }
    const sum = market.summary;
    if (sum) {
      found.unshift(tile(sum.benchmark ? `Benchmark ${sum.benchmark}` : "Median ticker", move(sum.benchmark ? sum.benchmark_return : sum.median, 2), `median ${signed(sum.median, 2)}, mean ${signed(sum.mean, 2)}`));
    }
    if (market.traded) {
      const [value, currency, count] = market.traded;
      found.push(tile(`Traded, ${currency}`, COMPACT.format(value), `in ${F0.format(count)} of ${plural(have, "ticker")}, those in ${currency}`));
    }
    found.unshift(tile("Session", session, `${F0.format(have)} of ${plural(expected, "ticker")}`));
    return h("div", { class: "tiles" }, found);
  }

  function movers(market) {
    const lists = h("div", { class: "moves" });
    const of = h("p", { class: "note" }, `${F0.format(current.length)} of ${plural(market.session[2], "ticker")}: those whose last session is ${page.session}.`);
    const fill = (key) => {
      const sorted = current.filter((row) => known(row[key])).sort((a, b) => b[key] - a[key]);
      const best = sorted.filter((row) => row[key] > 0).slice(0, 6);
      const worst = sorted.filter((row) => row[key] < 0).slice(-6).reverse();
      const widest = Math.max(...[...best, ...worst].map((row) => Math.abs(row[key])), 1e-9);
      const list = (title, those) => h("div", {}, h("h3", {}, title), those.length ? those.map((row) => h("a", { class: "move", href: linkTo(row.ticker) },
        h("span", {}, h("b", {}, row.ticker), h("small", {}, row.company)),
        h("div", { class: `meter ${tone(row[key])}` }, h("i", { style: { width: `${(100 * Math.abs(row[key])) / widest}%` } })),
        h("b", { class: tone(row[key]) }, signed(row[key], key === "d1" ? 2 : 1)))) : h("p", { class: "empty" }, "none"));
      lists.replaceChildren(list("Gained most", best), list("Lost most", worst));
    };
    fill("d1");
    return card("s7", "Movers", [lists, of], segments(SPANS, "d1", fill, "Over which time"));
  }

  function sectors(market) {
    const columns = ["d1", "w1", "m1", "m3", "y1"];
    const body = h("tbody");
    const title = h("span", {}, "1D");
    const fill = (key) => {
      const at = columns.indexOf(key) + 2;
      const sorted = market.sectors.filter((row) => known(row[at])).sort((a, b) => b[at] - a[at]);
      const widest = Math.max(...sorted.map((row) => Math.abs(row[at])), 1e-9);
      title.textContent = SPANS.find(([one]) => one === key)[1];
      body.replaceChildren(...sorted.map((row) => h("tr", {}, h("td", { class: "name" }, titled(row[0])), h("td", { class: "dim w2" }, F0.format(row[1])),
        h("td", {}, h("div", { class: `diverge ${tone(row[at])}` }, h("i", { style: { [row[at] < 0 ? "right" : "left"]: "50%", width: `${(50 * Math.abs(row[at])) / widest}%` } }))), h("td", {}, move(row[at], key === "d1" ? 2 : 1)))));
    };
    fill("d1");
    return card("s5", "Sectors", market.sectors.length ? h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Sector"), h("th", { scope: "col", class: "w2" }, "Tickers"), h("td", {}), h("th", { scope: "col" }, title))), body)
      : h("p", { class: "empty" }, "No company has a sector yet."), segments(SPANS, "d1", fill, "Over which time"));
  }
  const titled = (text) => (text || "").toLowerCase().replace(/(^|[\s&-])\p{L}/gu, (c) => c.toUpperCase());

  function breadth(market) {
    if (market.breadth.length < 2) return null;
    const box = h("div", { class: "chart", role: "img", "aria-label": "Share of tickers above their 50- and 200-day averages, and how many more closed higher than lower, session by session" });
    const legend = h("div", { class: "legend" });
    const place = h("div");
    box.append(legend, place);
    drawings.push(() => {
      const drawn = chart(place, 300);
      const times = market.breadth.map((row) => dated(row[0]));
      const share = { ...quiet, lineWidth: 2, priceFormat: { type: "custom", formatter: (v) => (v < -0.5 || v > 100.5 ? "" : `${F0.format(v)} %`), minMove: 0.1 }, autoscaleInfoProvider: () => ({ priceRange: { minValue: 0, maxValue: 100 } }) };
      const all = [["above the 200-day average", "c1", 9], ["above the 50-day average", "c2", 8]].map(([name, tint, at]) => {
        const series = drawn.addSeries(LWC.LineSeries, { ...share, color: colour(tint) });
        series.setData(points(times, market.breadth.map((row) => (known(row[at]) ? row[at] * 100 : null))));
        return [name, tint, series, (v) => `${F0.format(v)} %`];
      });
      const net = drawn.addSeries(LWC.HistogramSeries, { ...quiet, priceFormat: { type: "custom", formatter: (v) => F0.format(v), minMove: 1 } }, 1);
      net.setData(market.breadth.map((row, i) => ({ time: times[i], value: row[2] - row[3], color: colour(row[2] >= row[3] ? "up" : "down") })));
      all.push(["more closed higher than lower", "c6", net, (v) => F0.format(v)]);
      drawn.panes()[0].setStretchFactor(3);
      drawn.panes()[1].setStretchFactor(1.3);
      follow(drawn, legend, all, times.at(-1));
      drawn.timeScale().fitContent();
    });
    return card("s8", "Breadth", box);
  }

  function follow(drawn, legend, all, last) {
    const say = (time, values) => legend.replaceChildren(h("span", {}, h("b", {}, dayOf(time))), ...all.map(([name, tint, series, format]) => {
      const value = values(series);
      return known(value) && h("span", { style: { color: colour(tint) } }, `${name} `, h("b", {}, format(value)));
    }).filter(Boolean));
    const ofLast = new Map(all.map(([, , series]) => { const found = series.data().at(-1); return [series, found && (found.value ?? found.close)]; }));
    const rest = () => say(last, (series) => ofLast.get(series));
    drawn.subscribeCrosshairMove(({ time, seriesData }) => {
      if (time === undefined) rest();
      else say(time, (series) => { const found = seriesData.get(series); return found && (found.value ?? found.close); });
    });
    rest();
  }

  const isWell = ({ health }) => !(health.rejected || health.refused || health.missing || health.differences || health.behind || health.failure);
  function ails({ health }) {
    return [
      health.failure && `the last call failed: ${health.failure}`,
      health.behind && `${plural(health.behind, "session")} behind`,
      health.missing > health.behind && `${plural(health.missing - health.behind, "session")} missing`,
      health.rejected && `${plural(health.rejected, "row")} rejected`,
      health.refused && `${plural(health.refused, "object")} refused`,
      health.differences && `adjusted close differs in ${plural(health.differences, "session")}`,
    ].filter(Boolean);
  }
  function troubles(market) {
    const ill = rows.filter((row) => !isWell(row));
    const old = rows.filter((row) => row.date < market.expected).length;
    const sum = (name) => rows.reduce((total, row) => total + row.health[name], 0);
    const missing = sum("missing"), lacking = sum("unavailable"), rejected = sum("rejected"), refused = sum("refused"), differences = sum("differences"), restated = sum("restatements");
    const failed = rows.filter((row) => row.health.failure).length;
    const content = [
      h("ul", { class: "checks" },
        mark(rows.length > old, `${F0.format(rows.length - old)} of ${plural(rows.length, "ticker")} have the session of ${market.expected}${old ? `; ${F0.format(old)} end earlier, delisted ones among them` : ""}`),
        mark(!failed, failed ? `the last call for ${plural(failed, "ticker")} failed` : "No ticker's last call failed"),
        mark(!missing, `${missing ? plural(missing, "session is", "sessions are") : "No session is"} missing that the vendor may have${lacking ? `; ${F0.format(lacking)} it has not` : ""}`),
        mark(!rejected && !refused, rejected || refused ? `${plural(rejected, "row")} set aside, ${plural(refused, "object")} refused` : "No row broke a rule"),
        mark(!differences, differences ? `Adjusted closes differ from the vendor's in ${plural(differences, "session")}` : "Adjusted closes agree with the vendor's"),
        mark(true, restated ? `${plural(restated, "restatement")} kept with what was known before` : "Nothing was restated by the vendor")),
      ill.length ? h("div", {}, ill.slice(0, 8).map((row) => h("p", { class: "note" }, h("a", { href: linkTo(row.ticker) }, row.ticker), `: ${ails(row).join("; ")}`)), ill.length > 8 && h("p", { class: "note" }, `and ${F0.format(ill.length - 8)} more: choose “ask for a look” in the table below`)) : null,
    ];
    return card(market.breadth.length < 2 ? "" : "s4", "Data quality", content);
  }
  const mark = (good, text) => h("li", {}, h("span", { class: good ? "ok" : "bad", "aria-label": good ? "good" : "look" }, good ? "✓" : "!"), h("span", {}, text));

  const COLUMNS = [
    ["ticker", "Ticker", null, ""], ["spark", "Trend", null, "w0"], ["close", "Close", price, "w0"], ["d1", "1D", (v) => move(v, 2), "w1"], ["w1", "1W", move, "w2"], ["m1", "1M", move, "w2"],
    ["m6", "6M", move, "w3"], ["y1", "1Y", move, "w2"], ["rsi", "RSI", plain(F0), "w3"], ["volatility", "Volatility", (v) => percent(v, 0), "w3"], ["beta", "Beta", plain(F2), "w3"], ["drawdown", "Drawdown", (v) => signed(v), "w3"], ["volume", "Volume", plain(COMPACT), "w3"],
  ];
  const sorting = { key: "ticker", down: false, text: "", sector: "", shown: 100 };
  function everyTicker() {
    const table = h("table"), more = h("button", { class: "more", type: "button" });
    const names = [...new Set(rows.map((row) => row.sector).filter(Boolean))].sort();
    const count = h("span", { class: "dim", "aria-live": "polite" });
    const fill = () => {
      const text = sorting.text.trim().toLowerCase();
      const found = rows.filter((row) => (!text || row.ticker.toLowerCase().includes(text) || (row.company || "").toLowerCase().includes(text))
        && (!sorting.sector || (sorting.sector === "!" ? !isWell(row) : row.sector === sorting.sector)));
      const { key, down } = sorting;
      found.sort((a, b) => {
        if (key === "ticker") return down ? b.ticker.localeCompare(a.ticker) : a.ticker.localeCompare(b.ticker);
        if (!known(a[key]) || !known(b[key])) return known(b[key]) - known(a[key]);
        return down ? b[key] - a[key] : a[key] - b[key];
      });
      count.textContent = found.length === rows.length ? plural(rows.length, "ticker") : `${F0.format(found.length)} of ${plural(rows.length, "ticker")}`;
      const visible = COLUMNS.filter(([one]) => one !== "spark" || rows.some((row) => row.spark));
      table.className = COLUMNS.find(([one]) => one === key)[3] > "w1" ? "by-other" : "";
      const sortedBy = (one) => (one === key ? " sorted" : "");
      const head = h("tr", {}, visible.map(([one, label, , width]) => h("th", { scope: "col", class: width + sortedBy(one), "aria-sort": one === key ? (down ? "descending" : "ascending") : null },
        one === "spark" ? h("span", { title: "Adjusted closes of the last 20 weeks" }, label) : h("button", { type: "button", onclick: () => { sorting.down = one === key ? !down : one !== "ticker"; sorting.key = one; order.value = one; fill(); table.querySelector(`[aria-sort] button`).focus(); } }, label))));
      const lines = found.slice(0, sorting.shown).map((row) => h("tr", { class: "link", onclick: (event) => { if (!event.target.closest("a")) location.href = linkTo(row.ticker); } }, visible.map(([one, , show, width]) => {
        if (one === "ticker") return h("td", { class: "name" }, h("a", { href: linkTo(row.ticker) }, h("b", {}, row.ticker)), !isWell(row) && h("span", { class: "down", title: ails(row).join("; ") }, " !"), h("small", {}, row.company));
        if (one === "spark") return h("td", { class: width }, spark(row.spark, row.spark && row.spark.at(-1) >= row.spark[0]));
        if (one === "drawdown") return h("td", { class: width + sortedBy(one) }, signed(row.drawdown), known(row.drawdown) && h("small", { class: "dim", style: { display: "block" } }, `since ${row.first}`));
        if (one === "close") return h("td", { class: width }, price(row.close), row.date !== page.session && h("small", { class: "dim", style: { display: "block" } }, row.date));
        return h("td", { class: width + sortedBy(one) }, show(row[one]));
      })));
      table.replaceChildren(h("caption", { style: { position: "absolute", left: "-9999px" } }, "All tickers"), h("thead", {}, head), h("tbody", {}, lines));
      more.hidden = found.length <= sorting.shown;
      more.textContent = `Show ${F0.format(Math.min(200, found.length - sorting.shown))} more of ${F0.format(found.length)}`;
    };
    more.addEventListener("click", () => { sorting.shown += 200; fill(); });
    const order = h("select", { "aria-label": "Sort by", onchange: (event) => { sorting.key = event.target.value; sorting.down = sorting.key !== "ticker"; fill(); } },
      COLUMNS.filter(([key]) => key !== "spark").map(([key, label]) => h("option", { value: key, selected: key === sorting.key }, `by ${label}`)));
    const filters = h("div", { class: "filters" },
      h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter the tickers", value: sorting.text, oninput: (event) => { sorting.text = event.target.value; sorting.shown = 100; fill(); } }),
      h("select", { "aria-label": "Of which sector", onchange: (event) => { sorting.sector = event.target.value; sorting.shown = 100; fill(); } },
        h("option", { value: "" }, "all sectors"), h("option", { value: "!", selected: sorting.sector === "!" }, "ask for a look"), names.map((name) => h("option", { value: name, selected: sorting.sector === name }, titled(name)))), order);
    fill();
    return h("section", { class: "card" }, h("header", {}, h("h2", {}, "All tickers"), count, filters), h("div", { class: "scroll" }, table), more);
  }

  // A ticker

  const view = { range: "1Y", candles: true, on: new Set(["s50", "s200", "volume", "rsi", "macd", "drawdown"]) };
  const RANGES = [["3M", "3M", 91], ["6M", "6M", 182], ["1Y", "1Y", 365], ["2Y", "2Y", 740], ["All", "All", Infinity]];
  const OVERLAYS = [["s20", "SMA 20", "c4"], ["s50", "SMA 50", "c2"], ["s200", "SMA 200", "c3"], ["e12", "EMA 12", "c5"], ["e26", "EMA 26", "c1"], ["bollinger", "Bollinger", "c6"]];
  const PANES = [["volume", "Volume", "c6"], ["rsi", "RSI", "c3"], ["macd", "MACD", "c1"], ["drawdown", "Drawdown", "down"]];

  async function tickerPage(ticker) {
    const source = bundles.get(ticker);
    const row = byTicker.get(ticker);
    if (!source || !row) {
      return h("div", { class: "grid" }, card("", "No such ticker", h("p", {}, `The report has no ticker ${ticker}. `, h("a", { href: home }, "All tickers"))));
    }
    const data = await unpack(source.textContent);
    document.title = `${ticker} ${row.company || ""}, market report of ${page.session}`;
    const tickers = page.directory.map(([name]) => name);
    const at = tickers.indexOf(ticker);
    const step = (by, text, label) => { const other = tickers[at + by]; return other && h("a", { href: linkTo(other), rel: by > 0 ? "next" : "prev", "aria-label": `${label}, ${other}` }, text); };
    const well = isWell(row), profile = data.profile;
    const facts = [titled(row.sector), profile.industry && titled(profile.industry), profile.exchange, profile.country, profile.asset_type !== "Common Stock" && profile.asset_type].filter(Boolean).join(" · ");
    return h("div", {},
      h("nav", { class: "crumbs", "aria-label": "Tickers" }, h("a", { href: home }, "← All tickers"), h("div", { class: "right" }, step(-1, "‹ Previous", "Previous ticker"), step(1, "Next ›", "Next ticker"))),
      h("div", { class: "head" },
        h("div", { class: "who" }, h("h1", {}, ticker, " ", h("span", { class: "dim", style: { fontWeight: "500" } }, row.company !== ticker ? row.company : "")), h("p", {}, facts || "No profile of the company is stored.")),
        h("div", { class: "quote" }, h("div", { class: "price" }, price(row.close), h("small", {}, row.currency || "")), h("div", {}, known(row.change) && [move(row.change, 2), h("span", { class: "dim" }, " on the day, ")], h("span", { class: "dim" }, row.date)),
          h("a", { class: `badge ${well ? "" : "warn"}`, href: "#quality", onclick: (event) => { event.preventDefault(); $("quality").scrollIntoView({ behavior: "smooth" }); } }, well ? "✓ data complete" : `! ${ails(row)[0]}`))),
      h("div", { class: "grid" }, priceCard(ticker, row, data), returnsCard(row, data), riskCard(row, data), eventsCard(data), qualityCard(row, data), provenanceCard(data), aboutCard(profile)));
  }

  function priceCard(ticker, row, data) {
    const box = h("div", { class: "chart", role: "img", "aria-label": `Price chart of ${ticker}; its last sessions are in the table below` });
    const d = Object.fromEntries(Object.entries(data.d).map(([name, encoded]) => [name, decode(encoded)]));
    d.t = d.t.map((day) => day * DAY);
    const w = { t: decode(data.w.t).map((day) => day * DAY), c: decode(data.w.c) };
    const daily = d.t.length > 1;
    const draw = () => {
      charts = charts.filter((one) => !box.contains(one.chartElement()) || (one.remove(), false));
      box.replaceChildren();
      if (daily && view.range !== "All") drawDaily(box, d, data);
      else if (w.t.length > 1) drawWeekly(box, w);
      else { box.append(h("p", { class: "empty" }, "There are too few bars to draw.")); }
    };
    const chip = (key, label, tint, on, flip) => h("button", { type: "button", class: "chip", "aria-pressed": String(on), style: { color: on ? "" : null }, onclick: (event) => { event.currentTarget.setAttribute("aria-pressed", String(flip())); draw(); } }, h("i", { style: { background: `var(--${tint})` } }), label);
    const toggle = (key) => () => { if (view.on.has(key)) view.on.delete(key); else view.on.add(key); return view.on.has(key); };
    const chips = h("div", { class: "chips", role: "group", "aria-label": "What the chart shows", style: { marginBottom: "10px" } },
      chip("candles", "Candles", "up", view.candles, () => (view.candles = !view.candles)),
      [...OVERLAYS, ...PANES].map(([key, label, tint]) => chip(key, label, tint, view.on.has(key), toggle(key))),
      chip("log", "Log scale", "dim", view.on.has("log"), toggle("log")));
    drawings.push(draw);
    const shown = d.t.slice(-10).map((time, i, all) => { const j = d.t.length - all.length + i; return [dayOf(time), d.o[j], d.h[j], d.l[j], d.c[j], d.v[j], d.rsi[j]]; }).reverse();
    return card("", "Price", [chips, box,
      h("p", { class: "note" }, "Daily prices are split-adjusted. “All” shows closes of weeks with dividends taken out as well."),
      shown.length ? h("details", {}, h("summary", {}, "Last sessions as a table"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Session", "Open", "High", "Low", "Close", "Volume", "RSI"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, shown.map(([day, o, hi, lo, c, v, rsi]) => h("tr", {}, h("td", {}, day), [o, hi, lo, c].map((x) => h("td", {}, price(x))), h("td", {}, plain(COMPACT)(v)), h("td", {}, plain(F0)(rsi)))))))) : null,
    ], segments(RANGES.map(([key, label]) => [key, label]), view.range, (key) => { view.range = key; draw(); }, "Over which time"));
  }

  function digitsOf(values) {
    const top = Math.max(...values.filter(known), 0);
    return top && top < 1 ? 4 : 2;
  }

  function drawDaily(box, d, data) {
    const legend = h("div", { class: "legend" });
    const place = h("div");
    box.append(legend, place);
    const panes = PANES.slice(1).filter(([key]) => view.on.has(key)).map(([key]) => key);
    const drawn = chart(place, (innerWidth < 620 ? 300 : 360) + panes.length * 96);
    const log = view.on.has("log") ? LWC.PriceScaleMode.Logarithmic : LWC.PriceScaleMode.Normal;
    const digits = digitsOf(d.c);
    const format = { type: "price", precision: digits, minMove: 10 ** -digits };
    const all = [];
    const line = (name, tint, values, pane, more = {}, show = price) => {
      const series = drawn.addSeries(LWC.LineSeries, { ...quiet, lineWidth: 1.5, color: colour(tint), priceFormat: format, ...more }, pane);
      series.setData(points(d.t, values));
      if (name) all.push([name, tint, series, show]);
      return series;
    };
    let prices;
    if (view.candles) {
      const [up, down] = [colour("up"), colour("down")];
      prices = drawn.addSeries(LWC.CandlestickSeries, { upColor: up, downColor: down, wickUpColor: up, wickDownColor: down, borderVisible: false, priceFormat: format, priceLineVisible: false });
      prices.setData(d.t.map((time, i) => ({ time, open: d.o[i], high: d.h[i], low: d.l[i], close: d.c[i] })));
    } else {
      prices = drawn.addSeries(LWC.AreaSeries, { lineWidth: 2, lineColor: colour("c1"), topColor: `${colour("c1")}40`, bottomColor: `${colour("c1")}05`, priceFormat: format, priceLineVisible: false });
      prices.setData(points(d.t, d.c));
    }
    all.push(["close", "c6", prices, price]);
    for (const [key, label, tint] of OVERLAYS) {
      if (!view.on.has(key)) continue;
      if (key === "bollinger") {
        line("Bollinger", tint, d.bu, 0, { lineWidth: 1 });
        line("", tint, d.bl, 0, { lineWidth: 1 });
      } else line(label, tint, d[key], 0);
    }
    if (view.on.has("volume")) {
      const volume = drawn.addSeries(LWC.HistogramSeries, { ...quiet, priceScaleId: "volume", priceFormat: { type: "volume" } });
      volume.setData(d.t.map((time, i) => ({ time, value: d.v[i] || 0, color: colour(i && d.c[i] < d.c[i - 1] ? "down-soft" : "up-soft") })));
      volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
      all.push(["volume", "c6", volume, (v) => COMPACT.format(v)]);
    }
    panes.forEach((key, i) => {
      const pane = i + 1;
      if (key === "rsi") {
        const rsi = line("RSI 14", "c3", d.rsi, pane, { priceFormat: { type: "price", precision: 0, minMove: 1 }, autoscaleInfoProvider: () => ({ priceRange: { minValue: 10, maxValue: 90 } }) }, (v) => F0.format(v));
        for (const level of [30, 70]) rsi.createPriceLine({ price: level, color: colour("dim"), lineWidth: 1, lineStyle: LWC.LineStyle.Dotted, axisLabelVisible: false });
      } else if (key === "macd") {
        const histogram = drawn.addSeries(LWC.HistogramSeries, { ...quiet, priceFormat: format }, pane);
        histogram.setData(d.t.map((time, j) => (known(d.m[j]) && known(d.ms[j]) ? { time, value: d.m[j] - d.ms[j], color: colour(d.m[j] >= d.ms[j] ? "up-soft" : "down-soft") } : { time })));
        line("MACD", "c1", d.m, pane, {}, (v) => F2.format(v));
        line("signal", "c2", d.ms, pane, { lineWidth: 1 }, (v) => F2.format(v));
      } else {
        under(drawn, d.t, d.dd, pane, all, `drawdown since ${data.summary.first_session}`);
      }
    });
    drawn.panes().forEach((pane, i) => pane.setStretchFactor(i ? 96 : 360));
    // Once all panes are there: what is set before is taken over by those that come later.
    prices.priceScale().applyOptions({ mode: log, scaleMargins: { top: 0.12, bottom: view.on.has("volume") ? 0.2 : 0.05 } });
    LWC.createSeriesMarkers(prices, marksOf(d.t, data));
    const [, , days] = RANGES.find(([key]) => key === view.range);
    const last = d.t.at(-1);
    const first = d.t.findIndex((time) => time >= last - days * DAY);
    drawn.timeScale().setVisibleLogicalRange({ from: Math.max(0, first) - 0.5, to: d.t.length - 0.5 });
    follow(drawn, legend, all, last);
  }

  function under(drawn, times, values, pane, all, name) {
    const series = drawn.addSeries(LWC.BaselineSeries, { ...quiet, lineWidth: 1.5, baseValue: { type: "price", price: 0 }, bottomLineColor: colour("down"), bottomFillColor1: colour("down-soft"), bottomFillColor2: colour("down-soft"), topLineColor: colour("down"),
      priceFormat: { type: "custom", formatter: (v) => `${F0.format(v)} %`, minMove: 0.01 } }, pane);
    series.setData(points(times, values.map((v) => (known(v) ? v * 100 : null))));
    all.push([name, "down", series, (v) => `${F1.format(v)} %`]);
  }

  function drawWeekly(box, w) {
    const legend = h("div", { class: "legend" });
    const place = h("div");
    box.append(legend, place);
    const falls = view.on.has("drawdown");
    const drawn = chart(place, (innerWidth < 620 ? 300 : 360) + (falls ? 110 : 0));
    const digits = digitsOf(w.c);
    const series = drawn.addSeries(LWC.AreaSeries, { lineWidth: 2, lineColor: colour("c1"), topColor: `${colour("c1")}40`, bottomColor: `${colour("c1")}05`, priceLineVisible: false, priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    series.setData(points(w.t, w.c));
    const all = [["adjusted close of the week", "c1", series, price]];
    if (falls) {
      let highest = 0;
      under(drawn, w.t, w.c.map((v) => { if (known(v)) highest = Math.max(highest, v); return known(v) && highest ? v / highest - 1 : null; }), 1, all, `drawdown since ${dayOf(w.t[0])}`);
      drawn.panes()[0].setStretchFactor(360);
      drawn.panes()[1].setStretchFactor(110);
    }
    series.priceScale().applyOptions({ mode: view.on.has("log") ? LWC.PriceScaleMode.Logarithmic : LWC.PriceScaleMode.Normal, scaleMargins: { top: 0.12, bottom: 0.05 } });
    follow(drawn, legend, all, w.t.at(-1));
    drawn.timeScale().fitContent();
  }

  function marksOf(times, data) {
    const found = [];
    const place = (text) => { const time = dated(text); return times.find((one) => one >= time); };
    for (const action of data.actions) {
      const isSplit = action.action_type === "split";
      if (dated(action.ex_date) < times[0]) continue;
      const time = place(action.ex_date);
      if (time) found.push({ time, position: "belowBar", shape: isSplit ? "square" : "circle", color: colour(isSplit ? "c5" : "c4"), text: isSplit ? "S" : "D", size: 0.6 });
    }
    return found.sort((a, b) => a.time - b.time);
  }

  const stats = (pairs) => h("dl", { class: "stats" }, pairs.filter(([, value]) => known(value)).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

  function returnsCard(row, data) {
    const spans = [["1 day", row.d1], ["1 week", row.w1], ["1 month", row.m1], ["3 months", row.m3], ["6 months", row.m6], ["1 year", row.y1], ["all, yearly", data.summary.simple_return_yearly]].filter(([, v]) => known(v));
    const widest = Math.max(...spans.map(([, v]) => Math.abs(v)), 1e-9);
    return card("s6", "Returns, dividends reinvested", spans.length ? h("table", {}, h("tbody", {}, spans.map(([name, v]) => h("tr", {}, h("td", {}, name), h("td", { style: { width: "55%" } }, h("div", { class: `diverge ${tone(v)}` }, h("i", { style: { [v < 0 ? "right" : "left"]: "50%", width: `${(50 * Math.abs(v)) / widest}%` } }))), h("td", {}, move(v)))))) : h("p", { class: "empty" }, "There are too few sessions."));
  }

  function riskCard(row, data) {
    const place = known(row.high) && row.high > row.low ? Math.min(1, Math.max(0, (row.close - row.low) / (row.high - row.low))) : null;
    const s = data.summary;
    return card("s6", "Range, trend and risk", [
      place !== null && h("div", { style: { marginBottom: "14px" } }, h("div", { class: "ends" }, h("span", {}, "52-week low"), h("span", {}, "52-week high")), h("div", { class: "range", role: "img", "aria-label": `${Math.round(place * 100)} % of the way from the low to the high` }, h("i", { style: { left: `${place * 100}%` } })), h("div", { class: "ends" }, h("b", {}, price(row.low)), h("b", {}, price(row.high)))),
      stats([
        ["RSI 14", known(row.rsi) ? F0.format(row.rsi) : null], ["50-day average", known(row.sma50) ? price(row.sma50) : null], ["200-day average", known(row.sma200) ? price(row.sma200) : null],
        ["Volume", known(row.volume) ? COMPACT.format(row.volume) : null], ["Volume / 20-day mean", known(row.volumeRatio) ? F2.format(row.volumeRatio) : null], ["Volatility, 1 year", known(row.volatility) ? percent(row.volatility) : null],
        ["Sharpe ratio, 1 year", known(row.sharpe) ? F2.format(row.sharpe) : null], ["Beta, 1 year", known(row.beta) ? F2.format(row.beta) : null], [`Drawdown since ${row.first}`, known(row.drawdown) ? signed(row.drawdown) : null], [`Deepest drawdown since ${row.first}`, known(row.maxDrawdown) ? signed(row.maxDrawdown) : null],
        ["First daily session", row.first], ["Daily sessions", known(s.sessions) ? F0.format(s.sessions) : null],
      ])]);
  }

  function limitedTable(columns, lines, first, className = "") {
    const body = h("tbody");
    const more = h("button", { class: "more", type: "button" });
    const fill = (count) => {
      body.replaceChildren(...lines.slice(0, count).map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))));
      more.hidden = lines.length <= count;
      more.textContent = `Show all ${F0.format(lines.length)}`;
    };
    more.addEventListener("click", () => fill(lines.length));
    fill(first);
    return h("div", {}, h("div", { class: "scroll" }, h("table", { class: className }, h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))), body)), more);
  }

  function eventsCard(data) {
    const shares = (ratio) => (ratio >= 1 ? `${Number(ratio.toFixed(4))} for 1` : `1 for ${Number((1 / ratio).toFixed(4))}`);
    const lines = data.actions.map((a) => [a.ex_date, a.action_type === "split" ? "Split" : "Dividend", a.action_type === "split" ? shares(a.split_ratio) : amount(a.dividend_amount), a.payment_date || "–"]);
    const what = (r) => (r.factor ? `history times ${Number(r.factor.toFixed(6))}` : r.columns.join(", "));
    const restated = data.restatements.map((r) => [r.restated_at, `${r.table_name.replaceAll("_", " ")}, ${r.first_key} to ${r.last_key}`, `${r.class}: ${what(r)}`, plural(r.rows_changed, "row")]);
    return card("s6", "Events", [
      lines.length ? limitedTable(["Ex-date", "Kind", "Amount", "Paid"], lines, 8) : h("p", { class: "empty" }, "No dividends or splits are stored."),
      h("h3", {}, "Restated by the vendor"), restated.length ? limitedTable(["When (UTC)", "What", "How", "Rows"], restated, 5, "wrap") : h("p", { class: "empty" }, "Nothing has been restated since it was first stored."),
    ]);
  }

  function qualityCard(row, data) {
    const health = row.health;
    const fetched = data.fetches.map((f) => f.checked_at).sort().at(-1);
    const details = (title, content) => h("details", {}, h("summary", {}, title), content);
    const holes = data.gaps.filter((gap) => gap.may_be_had), lacks = data.gaps.filter((gap) => !gap.may_be_had);
    return h("section", { class: "card s6", id: "quality" }, h("header", {}, h("h2", {}, "Data quality")), h("ul", { class: "checks" },
      mark(!health.failure, health.failure ? `The last call failed: ${health.failure}` : fetched ? `Last asked of the vendor ${fetched} UTC` : "Never asked of the vendor here"),
      mark(!health.missing, health.missing ? `${plural(health.missing, "session is", "sessions are")} missing that the vendor may have` : `No session is missing that the vendor may have${health.unavailable ? `; ${plural(health.unavailable, "session")} it has not` : ""}`),
      mark(!health.rejected, health.rejected ? `${plural(health.rejected, "row")} broke a rule and ${health.rejected === 1 ? "was" : "were"} set aside` : "No row broke a rule"),
      mark(!health.refused, health.refused ? `${plural(health.refused, "object")} refused whole` : "No object was refused"),
      mark(!health.differences, health.differences ? `The vendor's adjusted close differs from ours in ${plural(health.differences, "session")}` : "The vendor's adjusted close agrees with ours where both are known"),
      mark(true, health.restatements ? `${plural(health.restatements, "restatement")} kept, with what was known before` : "No restatement")),
    data.gaps.length ? details("Missing sessions", h("ul", {}, [...holes, ...lacks].map((gap) => h("li", {}, gap.text, gap.may_be_had ? "" : " (the vendor has not)")))) : null,
    data.rejected.length ? details("Rejected rows", limitedTable(["Table", "Rules", "Row", "Object"], data.rejected.map((r) => [r.table_name, r.rules.join(", "), h("code", {}, r.row_values), h("code", {}, r.bronze_key)]), 10, "wrap")) : null,
    data.refused.length ? details("Refused objects", limitedTable(["Table", "When (UTC)", "Why", "Object"], data.refused.map((r) => [r.table_name, r.refused_at, r.reason, h("code", {}, r.bronze_key)]), 10, "wrap")) : null,
    data.differences.length ? details("Reconciliation differences", limitedTable(["Session", "Finding", "Our step", "Vendor's step"], data.differences.map((r) => [r.session_date, r.finding.replaceAll("_", " "), signed(r.simple_return, 3), signed(r.vendor_simple_return, 3)]), 10)) : null);
  }

  function provenanceCard(data) {
    const loads = data.loads.map((l) => [l.table_name.replaceAll("_", " "), `${plural(l.row_count, "row")}${l.first_date ? `, ${l.first_date} to ${l.last_date}` : ""}, loaded ${l.loaded_at} UTC`, l.bronze_keys.map((key) => h("div", {}, h("code", {}, key)))]);
    const fetches = data.fetches.map((f) => [f.dataset.replaceAll("_", " "), f.outcome, f.checked_at, f.had_at || "–"]);
    return card("", "Where it comes from", [
      loads.length ? limitedTable(["Table", "What it holds", "Bronze objects"], loads, 20, "wrap") : h("p", { class: "empty" }, "Nothing is loaded."),
      fetches.length ? h("details", {}, h("summary", {}, "When the vendor was asked"), limitedTable(["Dataset", "Outcome", "Asked (UTC)", "Had data (UTC)"], fetches, 20)) : null]);
  }

  function aboutCard(profile) {
    if (!profile.has_profile) return null;
    return card("", "The company", [profile.description && h("p", { style: { marginTop: "0" } }, profile.description), stats([
      ["Market value", known(profile.market_capitalization) ? COMPACT.format(profile.market_capitalization) : null], ["Price / earnings", known(profile.pe_ratio) ? F1.format(profile.pe_ratio) : null], ["Earnings per share", known(profile.eps) ? F2.format(profile.eps) : null],
      ["Dividend yield", known(profile.dividend_yield) ? percent(profile.dividend_yield, 2) : null], ["As of", profile.latest_quarter]])]);
  }

  // Search: "/" or Ctrl-K from anywhere, arrows, Enter.

  const input = $("search"), found = $("found");
  let hits = [], chosen = 0;
  function look() {
    const text = input.value.trim().toLowerCase();
    const rank = ([ticker, company]) => { const t = ticker.toLowerCase(), c = (company || "").toLowerCase(); return t === text ? 0 : t.startsWith(text) ? 1 : c.startsWith(text) ? 2 : t.includes(text) || c.includes(text) ? 3 : 9; };
    hits = text ? page.directory.map((entry) => [rank(entry), entry]).filter(([r]) => r < 9).sort((a, b) => a[0] - b[0]).slice(0, 12).map(([, entry]) => entry) : [];
    chosen = 0;
    paint();
  }
  function paint() {
    found.replaceChildren(...hits.map(([ticker, company], i) => h("li", { role: "option", id: `hit-${i}`, "aria-selected": String(i === chosen), onmousedown: (event) => { event.preventDefault(); go(ticker); } }, h("b", {}, ticker), h("span", {}, company))));
    const open = document.activeElement === input && input.value.trim() !== "";
    if (open && !hits.length) found.append(h("li", { class: "dim" }, "nothing found"));
    found.hidden = !open;
    input.setAttribute("aria-expanded", String(open));
    if (open && hits.length) input.setAttribute("aria-activedescendant", `hit-${chosen}`); else input.removeAttribute("aria-activedescendant");
  }
  function go(ticker) { input.value = ""; input.blur(); location.href = linkTo(ticker); }
  input.addEventListener("input", look);
  input.addEventListener("focus", look);
  input.addEventListener("blur", () => { found.hidden = true; input.setAttribute("aria-expanded", "false"); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (hits.length) chosen = (chosen + (event.key === "ArrowDown" ? 1 : hits.length - 1)) % hits.length;
      paint();
    } else if (event.key === "Enter" && hits.length) go(hits[chosen][0]);
    else if (event.key === "Escape") { input.value = ""; input.blur(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea")) return;
    if ((event.key === "/" && !event.ctrlKey && !event.metaKey) || (event.key === "k" && (event.ctrlKey || event.metaKey))) { event.preventDefault(); input.focus(); }
    else if (event.key === "ArrowRight" && !event.altKey) document.querySelector('.crumbs a[rel="next"]')?.click();
    else if (event.key === "ArrowLeft" && !event.altKey) document.querySelector('.crumbs a[rel="prev"]')?.click();
  });

  // Which page the address asks for

  let asked = 0;
  async function show() {
    const turn = ++asked;
    let ticker = "";
    try { ticker = decodeURIComponent(location.hash.replace(/^#\/?/, "")); } catch { ticker = location.hash; }
    if (!bundles.has(ticker) && places.has(ticker) && places.get(ticker) !== here) { location.replace(linkTo(ticker)); return; }
    if (!ticker && !page.overview) { location.replace(home); return; }
    const made = [];
    drawings = made;
    const content = ticker ? await tickerPage(ticker) : overview();
    if (turn !== asked) return;
    for (const one of charts) one.remove();
    charts = [];
    main.replaceChildren(content);
    for (const draw of made) draw();
  }
  addEventListener("hashchange", async () => { await show(); scrollTo(0, 0); main.focus({ preventScroll: true }); });
  await show();
})();
