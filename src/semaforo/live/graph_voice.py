"""What the client of a chat hears of a graph in which several steps speak.

Rules this module keeps:

1. One step is heard at a time: the first in the fusion that has something to say.
2. A graph that holds back lets nobody be heard before it is certain who answers, so that nothing is taken back.
   With a deadline, a quorum or a wait nobody is certain before the end.
3. A graph that restarts lets whoever speaks be heard at once; where another one takes its place, a marker goes out,
   and what comes after it is the answer from its beginning.
4. Why an answer ended, and what it used, is heard with the end of the run, not before.
5. A client that wants the answer whole hears nothing before the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from semaforo.errors import ModelFailed
from semaforo.wire.payload import ChatChunk, restart_chunk

Send = Callable[[ChatChunk], None]


class Voice:
    """The voice of one run.

    Args:
        speakers: Steps whose text may be the answer, the first one before the second and so on.
        certain: Tells whether no other step can take the place of one that speaks.
        restart: Whether the graph restarts.
        live: Whether the client hears chunks as they come.
        send: Sends a chunk to the client.

    Attributes:
        heard: The step that is heard, "" = none yet.
    """

    def __init__(
        self,
        speakers: tuple[str, ...],
        certain: Callable[[str], bool],
        send: Send,
        *,
        restart: bool = False,
        live: bool = True,
    ) -> None:
        self.speakers = speakers
        self.heard = ""
        self._certain = certain
        self._send = send
        self._restart = restart
        self._live = live
        self._kept: dict[str, list[ChatChunk]] = {}
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    def says(self, step: str, chunk: ChatChunk) -> None:
        """Take in a chunk of a step."""
        if chunk.restart:
            self._restarted(step, chunk)
            return
        kept = self._kept.setdefault(step, [])
        kept.append(chunk)
        if self.heard == step:
            self._tell(chunk)
        elif self._live and (chunk.delta.get("content") or chunk.delta.get("tool_calls")):
            if not self.heard:
                if self._restart or self._certain(step):
                    self._begin(step)
            elif self._restart and self.speakers.index(step) < self.speakers.index(self.heard):
                self._begin(step)

    def end(self, text: str) -> None:
        """Say what is left of the answer.

        Raises:
            ModelFailed: Another answer was heard, and cannot be taken back.
        """
        answers = [step for step in self.speakers if step in self._kept and self._said(step) == text]
        if self.heard not in answers:
            if self.heard and not self._restart:
                raise ModelFailed(f"step '{self.heard}' broke off after its answer had begun")
            if answers:
                self._begin(answers[0])
            else:
                self._take_back()
                self._send(ChatChunk({"role": "assistant", "content": text}))
                self._finish = "stop"
        self._send(ChatChunk({}, self._finish, self._usage, 0))

    def _begin(self, step: str) -> None:
        self._take_back()
        self.heard = step
        for chunk in self._kept.get(step, ()):
            self._tell(chunk)

    def _take_back(self) -> None:
        if self.heard:
            self._send(restart_chunk())
        self._finish = self._usage = None

    def _tell(self, chunk: ChatChunk) -> None:
        self._finish = chunk.finish_reason or self._finish
        self._usage = chunk.usage or self._usage
        if chunk.delta or chunk.logprobs or chunk.tokens:
            self._send(ChatChunk(chunk.delta, None, None, chunk.tokens, chunk.logprobs))

    def _restarted(self, step: str, chunk: ChatChunk) -> None:
        """Take in that a step, a graph itself, has started over."""
        self._kept.pop(step, None)
        if self.heard == step:
            self._finish = self._usage = None
            self._send(chunk)

    def _said(self, step: str) -> str:
        return "".join(str(chunk.delta.get("content") or "") for chunk in self._kept[step])
