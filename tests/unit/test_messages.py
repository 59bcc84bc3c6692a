from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.adapters.messages import Message, NotSentError, deliver

BOTH = frozenset({"mail", "webhook"})


class Post:
    """Takes messages by the ways that work, but none with a text that is refused."""

    def __init__(self, *, works=BOTH, ways=BOTH, refuses=()):
        self.works, self.ways, self.refuses = works, ways, refuses
        self.got, self.tried = [], []

    def send(self, way, subject, text):
        self.tried.append((way, subject))
        if way not in self.works:
            raise NotSentError(f"the {way} is gone")
        if text in self.refuses:
            raise NotSentError(f"the {way} takes no {text}", is_of_text=True)
        self.got.append((way, subject))


def message(number, by=BOTH):
    return Message(f"message {number}", f"text {number}", frozenset(by))


def test_a_way_that_is_gone_does_not_keep_the_other_from_anything():
    post = Post(works={"mail"})
    first = deliver([message(1), message(2)], post, at_most=5)
    assert post.got == [("mail", "message 1"), ("mail", "message 2")]
    assert first.sent == 2
    assert first.trouble == ["the webhook is gone"]
    assert post.tried.count(("webhook", "message 2")) == 0
    post.works = BOTH
    second = deliver([*first.unsent, message(3)], post, at_most=5)
    assert [subject for way, subject in post.got if way == "webhook"] == [
        "message 1",
        "message 2",
        "message 3",
    ]
    assert post.got.count(("mail", "message 1")) == 1
    assert not second.unsent
    assert not second.trouble


def test_a_text_that_is_refused_holds_up_no_other():
    post = Post(ways={"mail"}, refuses={"text 1"})
    delivery = deliver([message(1), message(2)], post, at_most=5)
    assert post.got == [("mail", "message 2")]
    assert delivery.unsent == [message(1, {"mail"})]


def test_the_oldest_messages_are_given_up_and_that_is_said():
    delivery = deliver([message(n) for n in range(4)], Post(works={"mail"}), at_most=2)
    assert delivery.unsent == [message(2, {"webhook"}), message(3, {"webhook"})]
    assert delivery.trouble == [
        "the webhook is gone",
        "given up, as 2 newer messages wait: message 0 (by webhook)",
        "given up, as 2 newer messages wait: message 1 (by webhook)",
    ]


def test_a_message_for_a_way_that_is_not_set_any_more_is_given_up():
    delivery = deliver([message(1, {"mail"})], Post(ways={"webhook"}), at_most=2)
    assert not delivery.unsent
    assert delivery.trouble == ["not sent, as there is no mail any more: message 1"]


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.sampled_from(sorted(BOTH)))), max_size=10))
def test_each_message_goes_out_once_a_way_and_in_order(looks):
    """In each look some messages come, and some ways work; at last all do."""
    post, unsent, count = Post(), (), 0
    for coming, works in [*looks, (0, BOTH)]:
        post.works = works
        new = [message(number) for number in range(count, count + coming)]
        count += coming
        unsent = deliver([*unsent, *new], post, at_most=30).unsent
    assert not unsent
    for way in BOTH:
        assert [subject for by, subject in post.got if by == way] == [
            f"message {number}" for number in range(count)
        ]
