"""A run waits until the owner of the node has approved its function of its image."""

from __future__ import annotations

import logging

from skerry.audit import Who
from skerry.wire import Status
from skerry_node.approvals import NotAskable, Question, Verdict
from skerry_node.course import Course, RunEnded, ending
from skerry_node.launchers.launcher import Image
from skerry_node.story import Story
from skerry_proxy.client import OpenedRun

log = logging.getLogger(__name__)

_VERDICT_SECONDS = 1.0


def wait_for_consent(course: Course, story: Story, opened: OpenedRun, image: Image) -> None:
    """Raises RunEnded when it does not come, NotRecorded, GivenUp, NodeStops."""
    verdict = course.parts.approvals.find_verdict(image.id, opened.method)
    if verdict is None:
        story.record("run.ask_owner", function=opened.method, image=opened.image, image_id=image.id)
        verdict = _ask_owner(course, opened, image)
    owner, word = Who("owner"), str(verdict)
    story.record("run.approval", owner, verdict=word, function=opened.method, image=opened.image, image_id=image.id)
    if verdict is not Verdict.APPROVED:
        sentence = f'The owner of this node has refused the function "{opened.method}" of the image {opened.image}.'
        raise RunEnded(Status.NOT_ALLOWED, sentence)


def _ask_owner(course: Course, opened: OpenedRun, image: Image) -> Verdict:
    """The run gives up its place meanwhile, so that others are not kept waiting."""
    parts, sender = course.parts, opened.sender
    question = Question(
        image=image.id,
        function=opened.method,
        reference=opened.image,
        digests=image.digests,
        databases=tuple(opened.databases),
        user=sender.user,
        organization=sender.origin,
        signed=sender.signed,
        since=parts.clock(),
        runs=(course.key.run,),
    )
    with ending(Status.NOT_ALLOWED, NotAskable):
        parts.approvals.ask(question)
    log.info("Run %s waits for approval: %s of %s (%s)", course.key, opened.method, opened.image, image.id)
    parts.places.leave(course.key)
    try:
        verdict = _await_verdict(course, question)
    finally:
        parts.approvals.withdraw(course.key.run)
    log.info("Run %s: the owner has %s %s of %s", course.key, verdict, opened.method, opened.image)
    while verdict is Verdict.APPROVED and not parts.places.try_enter(course.key):
        course.wait(_VERDICT_SECONDS)
    return verdict


def _await_verdict(course: Course, question: Question) -> Verdict:
    parts = course.parts
    hours = parts.config.policies.approval_hours
    until = parts.steady() + hours * 3600
    while (verdict := parts.approvals.find_verdict(question.image, question.function)) is None:
        if parts.steady() > until:
            raise RunEnded(
                Status.NOT_ALLOWED, f"The owner of this node did not approve the algorithm within {hours:g} hours."
            )
        course.wait(_VERDICT_SECONDS)
    return verdict
