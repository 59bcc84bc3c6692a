#!/usr/bin/env bash
# Starts docker-compose.yml as a new user would, beside what else runs, and takes a ticker to gold.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
export COMPOSE_PROJECT_NAME=stocks-test STOCKS_UI_PORT=13000 POSTGRES_PORT=15432 MINIO_PORT=19000 MINIO_CONSOLE_PORT=19001
# The image is built from the project; the passwords are the test's own.
docker run --rm --user 0:0 --network none --volume "$folder:/project" stocks-assets stocks init --file /project/.env
compose() { docker compose --file docker-compose.yml --env-file "$folder/.env" "$@"; }
trap 'status=$?; [ $status = 0 ] || compose logs --tail 50; compose down --volumes --timeout 20; rm -rf "$folder"; exit $status' EXIT
compose up --detach --no-build --wait --wait-timeout 300
compose exec -T code-location stocks tickers add ALLM KLVN
compose exec -T code-location stocks refresh ALLM KLVN
compose exec -T code-location stocks query "select ticker, close from mart_latest_prices order by 1" --format csv | tee "$folder/out"
[ "$(wc -l <"$folder/out")" = 3 ]
