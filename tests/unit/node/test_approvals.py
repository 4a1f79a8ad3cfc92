from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from skerry.errors import ConfigurationError
from skerry_node.approvals import MOST_WAITING, Approvals, Decision, NotAskable, Question, Verdict
from skerry_node.cli import node
from skerry_node.journal import Entry
from skerry_node.launchers.launcher import Attempt
from skerry_node.pipeline import Pipeline
from skerry_node.places import Places
from skerry_node.policies import Policies

pytestmark = pytest.mark.unit

IMAGE = f"sha256:{'ab' * 32}"


def question(function="mean", run=7, image=IMAGE, **changes) -> Question:
    values = {
        "image": image,
        "function": function,
        "reference": "team/mean:1",
        "digests": (image,),
        "databases": ("default",),
        "user": 7,
        "organization": 1,
        "signed": True,
        "since": 1_700_000_000.0,
        "runs": (run,),
    }
    return Question.model_validate({**values, **changes})


def decision(verdict=Verdict.APPROVED, function: str | None = "mean", image=IMAGE) -> Decision:
    return Decision(image=image, function=function, verdict=verdict, at=1.0)


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def approvals(tmp_path) -> Approvals:
    made = Approvals(tmp_path)
    made.start()
    return made


def test_what_is_asked_for_stays_listed(approvals, tmp_path) -> None:
    approvals.ask(question(run=7))
    approvals.ask(question(run=8, user=9))
    [asked] = approvals.questions()
    assert (asked.runs, asked.user) == ((7, 8), 9)
    approvals.withdraw(7)
    assert Approvals(tmp_path).questions()[0].runs == (8,)
    again = Approvals(tmp_path)
    again.start()
    assert again.questions()[0].runs == ()


def test_decisions_hold_for_content_and_function(approvals, tmp_path) -> None:
    approvals.decide([decision()])
    elsewhere = Approvals(tmp_path)
    assert elsewhere.find_verdict(IMAGE, "mean") is Verdict.APPROVED
    assert elsewhere.find_verdict(IMAGE, "median") is None
    assert elsewhere.find_verdict(f"sha256:{'cd' * 32}", "mean") is None
    assert (tmp_path / "approvals" / "decided.json").stat().st_mode & 0o777 == 0o600


def test_the_last_word_counts(approvals) -> None:
    approvals.decide([decision()])
    approvals.decide([decision(Verdict.REFUSED)])
    assert approvals.find_verdict(IMAGE, "mean") is Verdict.REFUSED
    approvals.decide([decision(function=None)])
    assert approvals.find_verdict(IMAGE, "mean") is Verdict.APPROVED
    approvals.decide([decision(Verdict.REFUSED, "median")])
    assert approvals.find_verdict(IMAGE, "median") is Verdict.REFUSED
    assert approvals.find_verdict(IMAGE, "other") is Verdict.APPROVED


def test_a_file_that_can_not_be_trusted_approves_nothing(approvals, tmp_path) -> None:
    approvals.decide([decision()])
    path = tmp_path / "approvals" / "decided.json"
    path.chmod(0o644)
    assert approvals.find_verdict(IMAGE, "mean") is None
    with pytest.raises(ConfigurationError, match="chmod 600"):
        approvals.decisions()
    path.chmod(0o600)
    path.write_text('[{"verdict": "approved"}]')
    assert approvals.find_verdict(IMAGE, "mean") is None
    with pytest.raises(ConfigurationError, match="damaged"):
        approvals.decide([decision()])


def test_only_so_many_runs_wait(approvals) -> None:
    for run in range(1, MOST_WAITING + 1):
        approvals.ask(question(f"f{run}", run))
    with pytest.raises(NotAskable, match="Too many"):
        approvals.ask(question("one more", 1000))


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "x" * 1000, "\u202egnp"])
def test_names_that_would_fool_a_reader_are_not_shown(approvals, name) -> None:
    with pytest.raises(NotAskable, match="such a name"):
        approvals.ask(question(name))


# --- a run that waits ------------------------------------------------------------------------------------


@pytest.fixture
def waiting(parts, make_order):
    """A pipeline whose owner is asked, in a thread, with its surroundings."""
    rules = Policies.model_validate({"allowed_algorithms": [{"algorithm": ".*", "approve_first": True}]})
    config = parts.config.model_copy(update={"policies": rules})
    return _Waiting(config, parts, make_order)


class _Waiting:
    def __init__(self, config, parts, make_order) -> None:
        self.parts = replace(parts, config=config, clock=lambda: self.time_of_day, steady=lambda: self.now)
        self.now, self.time_of_day = 300.0, 1_700_000_000.0
        self.pipeline = Pipeline(self.parts, Entry(make_order()))
        self.parts.places.enter(self.pipeline.key)
        self.thread = threading.Thread(target=self.pipeline.carry_out, daemon=True)

    def start(self) -> Question:
        self.thread.start()
        until(self.parts.approvals.questions)
        until(lambda: self.parts.places.offer() == 1)
        return self.parts.approvals.questions()[0]

    def join(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_an_approved_run_goes_on_without_a_restart(waiting, proxy, launcher) -> None:
    asked = waiting.start()
    assert (asked.function, asked.runs, asked.image) == ("mean", (7,), "fake:copy")
    assert launcher.starts == []
    waiting.parts.approvals.decide([decision(image="fake:copy")])
    waiting.join()
    assert [status for status, _, _ in proxy.delivered] == ["completed"]
    assert waiting.parts.approvals.questions()[0].runs == ()


def test_a_refused_run_is_not_allowed(waiting, proxy, launcher) -> None:
    waiting.start()
    waiting.parts.approvals.decide([decision(Verdict.REFUSED, image="fake:copy")])
    waiting.join()
    [(status, log, _)] = proxy.delivered
    assert status == "not allowed"
    assert 'refused the function "mean" of the image copy' in log
    assert launcher.starts == []


def test_nobody_waits_for_ever(waiting, proxy) -> None:
    waiting.start()
    waiting.now += 72 * 3600 + 1
    waiting.join()
    [(status, log, _)] = proxy.delivered
    assert status == "not allowed"
    assert "within 72 hours" in log


def test_a_clock_that_is_set_cuts_no_wait_short(waiting, proxy, monkeypatch) -> None:
    find, looks = waiting.parts.approvals.find_verdict, []
    monkeypatch.setattr(waiting.parts.approvals, "find_verdict", lambda *what: looks.append(what) or find(*what))
    assert waiting.start().since == 1_700_000_000.0
    waiting.time_of_day += 72 * 3600 + 1
    seen = len(looks)
    until(lambda: len(looks) > seen + 1)
    waiting.parts.approvals.decide([decision(image="fake:copy")])
    waiting.join()
    assert [status for status, _, _ in proxy.delivered] == ["completed"]


def test_a_killed_run_waits_no_longer(waiting, proxy) -> None:
    waiting.start()
    waiting.pipeline.stop("killed by user")
    waiting.join()
    assert proxy.delivered == []
    assert waiting.parts.approvals.questions()[0].runs == ()


def test_what_was_approved_before_is_not_asked_again(waiting, proxy) -> None:
    waiting.parts.approvals.decide([decision(image="fake:copy", function=None)])
    waiting.thread.start()
    waiting.join()
    assert [status for status, _, _ in proxy.delivered] == ["completed"]
    assert waiting.parts.approvals.questions() == ()


def test_an_approved_run_waits_for_a_place(waiting, proxy) -> None:
    waiting.start()
    other = Attempt(99, 1)
    waiting.parts.places.enter(other)
    waiting.parts.approvals.decide([decision(image="fake:copy")])
    until(lambda: waiting.parts.approvals.questions()[0].runs == ())
    assert proxy.delivered == []
    waiting.parts.places.leave(other)
    waiting.join()
    assert [status for status, _, _ in proxy.delivered] == ["completed"]


def test_places() -> None:
    changes = []
    places = Places(1, lambda: changes.append(1))
    first, second = Attempt(1, 1), Attempt(2, 1)
    places.enter(first)
    assert not places.try_enter(second)
    assert places.offer() == 0
    places.leave(first)
    assert len(changes) == 1
    places.leave(first)
    assert places.offer() == 1
    assert places.try_enter(second)
    assert len(changes) == 2


# --- the owner's command line ----------------------------------------------------------------------------


def skerry(path, verb: str, *arguments: str, **options):
    return CliRunner().invoke(node, [verb, *arguments, "--config", str(path)], **options)


@pytest.fixture
def asked(development) -> Approvals:
    (development.parent / "state").mkdir()
    approvals = Approvals(development.parent / "state")
    approvals.start()
    approvals.ask(question())
    approvals.ask(question("median", 8, reference="[red]team/mean"))
    return approvals


def test_the_list_shows_who_asked_for_what(asked, development) -> None:
    rows = json.loads(skerry(development, "algorithms", "--json").output)
    assert [(row["ref"], row["function"], row["user"], row["decision"]) for row in rows] == [
        ("abababababab", "mean", 7, None),
        ("abababababab", "median", 7, None),
    ]
    table = CliRunner(env={"COLUMNS": "200"}).invoke(node, ["algorithms", "--config", str(development)]).output
    assert "user 7 of organization 1" in table
    assert "[red]team/mean" in table
    assert "none yet" in table


def test_approve_and_refuse(asked, development) -> None:
    done = skerry(development, "approve", "abab", "--yes", "--json")
    assert [(one["function"], one["verdict"]) for one in json.loads(done.output)] == [
        ("mean", "approved"),
        ("median", "approved"),
    ]
    assert all(isinstance(one["by"], int) for one in json.loads(done.output))
    assert skerry(development, "refuse", IMAGE, "--yes", "--function", "mean").exit_code == 0
    assert asked.find_verdict(IMAGE, "mean") is Verdict.REFUSED
    assert asked.find_verdict(IMAGE, "median") is Verdict.APPROVED
    assert skerry(development, "approve", "abab", "--yes", "--all-functions").exit_code == 0
    assert asked.find_verdict(IMAGE, "anything") is Verdict.APPROVED


def test_what_was_refused_is_not_approved_by_the_way(asked, development) -> None:
    assert skerry(development, "refuse", "abab", "--yes", "--function", "mean").exit_code == 0
    assert skerry(development, "approve", "abab", "--yes").exit_code == 0
    assert asked.find_verdict(IMAGE, "mean") is Verdict.REFUSED
    assert asked.find_verdict(IMAGE, "median") is Verdict.APPROVED
    assert skerry(development, "approve", "abab", "--yes").exit_code == 0
    assert asked.find_verdict(IMAGE, "mean") is Verdict.APPROVED


def test_without_yes_it_asks(asked, development) -> None:
    no = skerry(development, "approve", "abab", input="n\n")
    assert no.exit_code == 1
    assert IMAGE in no.output
    assert asked.decisions() == ()
    assert skerry(development, "approve", "abab", input="y\n").exit_code == 0
    assert asked.find_verdict(IMAGE, "mean") is Verdict.APPROVED


WRONG = [
    (("beef",), 'Nothing known is "beef"'),
    (("a",), 'Nothing known is "a"'),
    (("abab", "--function", "x"), "asked for: mean, median"),
    (("abab", "--function", "mean", "--all-functions"), "together"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_what_can_not_be_decided(asked, development, arguments, sentence) -> None:
    result = skerry(development, "approve", *arguments, "--yes")
    assert result.exit_code == 2
    assert sentence in result.output
    assert asked.decisions() == ()


def test_two_images_that_begin_alike(asked, development) -> None:
    asked.ask(question(image=f"sha256:abab{'0' * 60}"))
    assert "write more of it" in skerry(development, "approve", "abab", "--yes").output


def test_nothing_asked_for(development) -> None:
    assert "Nothing was asked for" in skerry(development, "algorithms").output
