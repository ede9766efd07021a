"""What strangers and broken clients send: each gets a clear answer, and a session that runs meanwhile does not notice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import av
import httpx
import numpy as np
import pytest
import pytest_asyncio
import websockets

from streamer.metrics import resident_bytes
from tests.streamer.bystander import Bystander
from tests.streamer.live import Client, LiveServer, voice_like
from tests.streamer.test_live import wav

GIGABYTE = 1 << 30
SDP_HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"


@pytest.fixture(scope="module")
def viewer(server: LiveServer) -> Iterator[Bystander]:
    viewer = Bystander(server.url)
    viewer.until_frames(15)
    yield viewer
    viewer.close()


@pytest_asyncio.fixture
async def bystander(viewer: Bystander) -> AsyncIterator[Bystander]:
    """A running session; afterwards its frames must have come at 25 fps all the time."""
    started_s = time.monotonic()
    yield viewer
    await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - started_s)))
    elapsed_s = time.monotonic() - started_s
    await asyncio.sleep(0.1)  # what has come by now is soon told
    frames_s = viewer.between(started_s, started_s + elapsed_s)
    assert 23.5 <= len(frames_s) / elapsed_s <= 26.5
    assert np.diff(frames_s).max() < 0.25


@pytest_asyncio.fixture
async def client(server: LiveServer) -> AsyncIterator[Client]:
    client = Client(server.url, mode="agent")
    await client.create()
    yield client
    await client.close()


def code_of(response: httpx.Response) -> str:
    """Every error answer has the one shape."""
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "hint"}, body
    assert body["error"]["message"]
    return str(body["error"]["code"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        pytest.param("GET", "/nowhere", None, 404, "not_found", id="no such path"),
        pytest.param("PUT", "/v1/sessions", None, 405, "method_not_allowed", id="no such method"),
        pytest.param("POST", "/v1/sessions", {"mode": "sing"}, 422, "invalid_request", id="unknown mode"),
        pytest.param("POST", "/v1/sessions", {"colour": 1}, 422, "invalid_request", id="unknown field"),
        pytest.param("POST", "/v1/sessions", {"seed": -1}, 422, "invalid_request", id="negative seed"),
        pytest.param("POST", "/v1/sessions", {"portrait": "nobody"}, 404, "portrait_unknown", id="unknown portrait"),
        pytest.param("POST", "/v1/sessions", {"portrait": "bad"}, 422, "portrait_refused", id="model refuses portrait"),
        pytest.param("GET", "/v1/portraits/nobody.png", None, 404, "portrait_unknown", id="unknown picture"),
        pytest.param("DELETE", "/v1/portraits/plain", None, 409, "portrait_is_builtin", id="built-in portrait"),
        pytest.param("POST", "/v1/portraits", {"file": "x"}, 422, "not_a_form", id="portrait without a form"),
        pytest.param("GET", "/v1/sessions/0123456789abcdef", None, 404, "session_unknown", id="unknown session"),
    ],
)
def test_error_shape(server: LiveServer, method: str, path: str, body: dict[str, object] | None, status: int, code: str) -> None:
    """Status, code and shape of what a client can get wrong."""
    response = httpx.request(method, server.url + path, json=body)
    assert response.status_code == status
    assert code_of(response) == code


def test_the_interface_describes_itself(server: LiveServer) -> None:
    """/openapi.json names every path of the API, and what an upload looks like."""
    described = httpx.get(f"{server.url}/openapi.json").json()
    assert described["info"]["title"] == "livemimic"
    session = "/v1/sessions/{session_id}"
    paths = {"/v1/sessions", session, f"{session}/offer", f"{session}/interrupt", f"{session}/speak", "/v1/portraits"}
    assert paths | {"/healthz", "/readyz", "/metrics"} <= set(described["paths"])
    assert "multipart/form-data" in described["paths"][f"{session}/speak"]["post"]["requestBody"]["content"]


def test_json_that_is_none(server: LiveServer) -> None:
    """A body that does not parse is the client's fault, not a 500."""
    response = httpx.post(f"{server.url}/v1/sessions", content=b"{oops", headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert code_of(response) == "invalid_request"


def test_cors_is_given_to_the_named_origin_only(server: LiveServer) -> None:
    """Error answers carry the header too, or a page could not read them."""
    for origin, allowed in (("https://example.org", "https://example.org"), ("https://evil.example", None)):
        response = httpx.get(f"{server.url}/nowhere", headers={"Origin": origin})
        assert response.headers.get("access-control-allow-origin") == allowed


def test_portraits_can_be_listed_uploaded_and_deleted(server: LiveServer) -> None:
    """An upload is usable by its name, is not listed for others, and can be deleted."""
    listed = httpx.get(f"{server.url}/v1/portraits").json()["portraits"]
    assert [portrait["name"] for portrait in listed] == ["plain", "bad"]
    picture = httpx.get(server.url + listed[0]["url"])
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    response = httpx.post(f"{server.url}/v1/portraits", files={"file": ("me.png", picture.content)})
    assert response.status_code == 201
    created = response.json()
    assert created["report"] == {"ok": True}
    assert httpx.get(server.url + created["url"]).status_code == 200
    assert len(httpx.get(f"{server.url}/v1/portraits").json()["portraits"]) == 2
    assert httpx.delete(f"{server.url}/v1/portraits/{created['name']}").status_code == 204
    assert httpx.get(server.url + created["url"]).status_code == 404
    refused = httpx.post(f"{server.url}/v1/portraits", files={"file": ("me.png", b"no picture")})
    assert (refused.status_code, code_of(refused)) == (422, "not_an_image")


async def test_tokens_are_checked(client: Client, bystander: Bystander) -> None:
    """Without a token, with a wrong one and with another session's one nothing can be read or done."""
    for token in (None, "wrong", bystander.session["token"]):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        for method, path, body in (
            ("GET", "", {}), ("DELETE", "", {}), ("POST", "/interrupt", {}), ("POST", "/offer", {"json": {"sdp": "v=0", "type": "offer"}}),
            ("POST", "/speak", {"files": {"file": ("a.wav", b"x")}}),
        ):  # fmt: skip
            response = await client.http.request(method, client.path + path, headers=headers, **body)
            assert response.status_code == 401
            assert code_of(response) in ("token_missing", "token_wrong")
            assert response.headers["www-authenticate"] == "Bearer"
    url = client.url.replace("http", "ws", 1)
    async with websockets.connect(f"{url}{client.path}/events?token=wrong") as socket:
        assert json.loads(await socket.recv())["error"]["code"] == "token_wrong"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


async def test_bad_offers_then_a_good_one_then_a_second(client: Client, bystander: Bystander) -> None:
    """Garbage is refused and costs nothing: a proper offer still works; after it no other one does."""
    media = (
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=fmtp:111 minptime=10\r\n",  # parameters of a codec that is not there
        "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    )
    for sdp in ("", "garbage", "v=0", "\x00" * 1000, SDP_HEAD, *(SDP_HEAD + lines for lines in media)):
        response = await client.http.post(f"{client.path}/offer", json={"sdp": sdp, "type": "offer"}, headers=client.headers)
        assert response.status_code == 400, sdp
        code_of(response)
    for body in ({}, {"sdp": "x", "type": "answer"}, {"sdp": 1, "type": "offer"}, {"sdp": "x" * 100_001, "type": "offer"}):
        response = await client.http.post(f"{client.path}/offer", json=body, headers=client.headers)
        assert response.status_code == 422
        code_of(response)
    await client.connect()
    await client.until_frames(5)
    second = {"sdp": SDP_HEAD, "type": "offer"}
    response = await client.http.post(f"{client.path}/offer", json=second, headers=client.headers)
    assert response.status_code == 409
    code_of(response)


async def test_two_offers_at_once(client: Client, bystander: Bystander) -> None:
    """One is answered, the other one is told that it is the second."""
    offer = await client.make_offer()
    answers = await asyncio.gather(*(client.http.post(f"{client.path}/offer", json=offer, headers=client.headers) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert code_of(next(answer for answer in answers if answer.status_code == 409)) == "already_answered"


def test_two_gigabytes_with_a_declared_length(server: LiveServer) -> None:
    """The answer comes before the body, and the client gets to see it."""
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), timeout=3.0) as connection:
        connection.sendall(
            b"POST /v1/portraits HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            + f"Content-Length: {2 * GIGABYTE}\r\n\r\n".encode()
        )
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


async def test_two_gigabytes_in_chunks(client: Client, bystander: Bystander, server: LiveServer) -> None:
    """Without a length the upload is cut off at the limit; memory stays flat."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.wav"\r\n\r\n'
        while sent < 2 * GIGABYTE:
            yield bytes(1 << 18)
            sent += 1 << 18

    before = resident_bytes(server.process.pid)
    headers = client.headers | {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(httpx.TransportError):  # a client that never stops sending is cut off
        await client.http.post(f"{client.path}/speak", content=endless(), headers=headers)
    assert sent < 80 << 20
    assert resident_bytes(server.process.pid) - before < 30 << 20


async def test_an_upload_that_is_a_little_too_large(client: Client) -> None:
    """Its sender, who reads only when everything is sent, gets to see the answer."""
    files = {"file": ("me.png", bytes(11 << 20))}
    response = await client.http.post("/v1/portraits", files=files)
    assert (response.status_code, code_of(response)) == (413, "body_too_large")


def video_only() -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


def flac(seconds: float) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice_like(seconds, 16_000)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


def too_long() -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        for _ in range(61):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 80_000), dtype=np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "speech_empty", id="empty"),
        pytest.param(b"hello, I am a text file" * 99, "speech_not_audio", id="text"),
        pytest.param(os.urandom(50_000), "speech_not_audio", id="noise"),
        pytest.param(wav(voice_like(2.0, 16_000), 16_000)[:9_000], "speech_truncated", id="truncated wav"),
        pytest.param(flac(3.0)[: len(flac(3.0)) // 2], "speech_truncated", id="truncated flac"),
        pytest.param(wav(np.zeros(0, dtype=np.int16), 16_000), "speech_empty", id="header alone"),
        pytest.param(video_only(), "speech_no_audio", id="silent film"),
        pytest.param(too_long(), "speech_too_long", id="ten minutes and more"),
        pytest.param(PLAYLIST, "speech_not_audio", id="playlist of local files"),
    ],
)
async def test_bad_speak_files(server: LiveServer, client: Client, data: bytes, code: str) -> None:
    """Each kind of unusable file has its own code."""
    files = {"file": ("speech.wav", data, "audio/wav")}
    response = await client.http.post(f"{client.path}/speak", files=files, headers=client.headers)
    assert response.status_code == 422
    assert code_of(response) == code


async def test_speak_needs_the_field(client: Client) -> None:
    """A form without the file says which field is missing."""
    response = await client.http.post(f"{client.path}/speak", files={"sound": ("a.wav", b"x")}, headers=client.headers)
    assert (response.status_code, code_of(response)) == (422, "file_missing")


async def test_bad_messages_on_the_websocket(client: Client, bystander: Bystander) -> None:
    """Each comes back as an error event; the connection and the session go on."""
    async with client.events() as events:
        await events.send(b"\x00\x00")
        assert await events.error_code() == "pcm_without_start"
        for rate in (44100, 0, "16000", [16000], None, True):
            await events.send({"type": "start", "sample_rate": rate})
            assert await events.error_code() == "bad_sample_rate"
        await events.send({"type": "start", "sample_rate": 16000.0})
        await events.send(b"\x00\x00\x00")
        assert await events.error_code() == "odd_pcm_length"
        await events.send({"type": "dance"})
        assert await events.error_code() == "unknown_message"
        for text in ("{oops", "[1]", '"start"', "null", "[" * 100_000):
            await events.socket.send(text)
            assert await events.error_code() in ("bad_json", "unknown_message")
        await events.send(voice_like(0.1, 16_000).tobytes())
        await events.send({"type": "ping"})
        await events.wait("pong")
    assert (await client.status())["session_id"] == client.session["session_id"]


def deaf_socket(client: Client) -> socket.socket:
    """A WebSocket of the session whose receive buffer is small and which nobody reads."""
    parts = urlsplit(client.url)
    deaf = socket.create_connection((parts.hostname, parts.port), timeout=2.0)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(
        f"GET {client.path}/events?token={client.session['token']} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return deaf


async def test_a_client_that_never_reads(client: Client, bystander: Bystander, server: LiveServer) -> None:
    """Its events are dropped, the server's memory and the other sessions do not notice."""
    before = resident_bytes(server.process.pid)
    with deaf_socket(client):
        for _ in range(300):
            await client.interrupt()
    assert resident_bytes(server.process.pid) - before < 20 << 20
    assert await asyncio.to_thread(server.metric, "livemimic_sessions") == 2


async def test_a_client_that_floods_and_never_reads(client: Client, bystander: Bystander, server: LiveServer) -> None:
    """20,000 messages that are answered each: the other session's pictures go on coming between them."""
    nonsense = b"\x81\x82\x00\x00\x00\x00{]"  # a masked text frame, mask 0
    before = resident_bytes(server.process.pid)
    with deaf_socket(client) as deaf, contextlib.suppress(TimeoutError):
        await asyncio.to_thread(deaf.sendall, nonsense * 20_000)
        await asyncio.sleep(0.3)
    assert resident_bytes(server.process.pid) - before < 20 << 20
    assert await asyncio.to_thread(server.metric, "livemimic_sessions") == 2


async def test_a_message_beyond_all_limits(client: Client, bystander: Bystander) -> None:
    """The WebSocket is closed with 1009, the session goes on."""
    async with client.events() as events:
        await events.send({"type": "start", "sample_rate": 16000})
        with contextlib.suppress(websockets.ConnectionClosed):
            await events.send(bytes(3 << 20))
        await events.socket.wait_closed()
        assert events.socket.close_code == 1009
    assert (await client.status())["session_id"] == client.session["session_id"]


async def test_session_survives_its_websocket(client: Client, bystander: Bystander) -> None:
    """A WebSocket that is torn off in the middle of an utterance leaves the session as it was."""
    async with client.events() as events:
        await events.send({"type": "start", "sample_rate": 16000})
        await events.send(voice_like(0.2, 16_000).tobytes())
        events.socket.transport.abort()
    async with client.events() as events:
        await events.send({"type": "ping"})
        await events.wait("pong")
