"""A client of a language server over stdio, as an editor is one: documents are opened, and the server is asked."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

LONGEST_WAIT = 120
"""Seconds after which a server that says nothing is ended, so that the test fails instead of hanging."""


class LanguageServer:
    """A running yaml-language-server; `settings` is the section `yaml` of an editor's settings."""

    def __init__(self, command: Sequence[str], settings: dict[str, Any]) -> None:
        self._settings = settings
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._watchdog = threading.Timer(LONGEST_WAIT, self._process.kill)
        self._watchdog.start()
        self._last = 0
        self._version = 0
        self._published: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> LanguageServer:
        hover = {"contentFormat": ["plaintext", "markdown"]}
        item = {"documentationFormat": ["plaintext"], "snippetSupport": True}
        capabilities = {
            "textDocument": {"hover": hover, "completion": {"completionItem": item}, "publishDiagnostics": {}},
            "workspace": {"configuration": True},
        }
        self.request("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
        self._notify("initialized", {})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()

    def diagnostics(self, texts: Mapping[Path, str]) -> dict[Path, list[dict[str, Any]]]:
        """What the server says about documents, which it is given as unsaved texts of files."""
        waiting = {path.as_uri(): path for path in texts}
        for uri, path in waiting.items():
            self._version += 1
            document = {"uri": uri, "version": self._version, "languageId": "yaml", "text": texts[path]}
            self._notify("textDocument/didOpen", {"textDocument": document})
            self._published.pop(uri, None)
        while not waiting.keys() <= self._published.keys():
            self._take(self._read())
        return {path: self._published[uri] for uri, path in waiting.items()}

    def at(self, method: str, path: Path, line: int, character: int) -> Any:
        """The answer to a question about a place in an open document, both numbers from 0."""
        place = {"textDocument": {"uri": path.as_uri()}, "position": {"line": line, "character": character}}
        return self.request(method, place)

    def request(self, method: str, parameters: Any) -> Any:
        self._last += 1
        number = self._last
        self._write({"id": number, "method": method, "params": parameters})
        while True:
            message = self._read()
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        """Answer a question of the server, or remember what it publishes."""
        if "id" in message and "method" in message:
            sections = message["params"].get("items", []) if message["method"] == "workspace/configuration" else []
            answer = [self._settings if item.get("section") == "yaml" else {} for item in sections]
            self._write({"id": message["id"], "result": answer or None})
        elif message.get("method") == "textDocument/publishDiagnostics":
            self._published[message["params"]["uri"]] = message["params"]["diagnostics"]

    def _notify(self, method: str, parameters: Any) -> None:
        self._write({"method": method, "params": parameters})

    def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the language server ended, or said nothing for too long"
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        return message
