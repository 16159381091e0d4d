"""grpcio's client and server: each kind of call through ingress as directly, over h2c and over TLS.

The methods take and give bytes (no code is generated from a .proto: gRPC does not care what a message holds).
"""

from __future__ import annotations

import threading
from concurrent import futures

import grpc

from kit import certificates
from kit.stand import HOST, Route, Stand

from .common import Comparison, arguments

SERVICE = "hythe.test.Echo"
MIB = 1 << 20
OPTIONS = [("grpc.max_receive_message_length", 64 * MIB), ("grpc.max_send_message_length", 64 * MIB)]


class Handlers(grpc.GenericRpcHandler):
    """The service. `cancelled` is set when a call that waits has been given up by its client."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Status": grpc.unary_unary_rpc_method_handler(self.status),
            "StatusAfter": grpc.unary_stream_rpc_method_handler(self.status_after),
            "Metadata": grpc.unary_unary_rpc_method_handler(self.metadata),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "WaitStream": grpc.unary_stream_rpc_method_handler(self.wait_stream),
            "TimeLeft": grpc.unary_unary_rpc_method_handler(self.time_left),
            "Large": grpc.unary_unary_rpc_method_handler(self.large),
        }

    def service(self, details):
        service, _, method = details.method.strip("/").partition("/")
        return self.methods.get(method) if service == SERVICE else None

    def unary(self, message, context):
        return message

    def server_stream(self, message, context):
        for number in range(int(message)):
            yield b"%d" % number

    def client_stream(self, messages, context):
        return b"|".join(messages)

    def both(self, messages, context):
        for message in messages:
            yield message[::-1]

    def status(self, message, context):
        code, _, text = message.decode().partition(" ")
        context.set_trailing_metadata((("x-why", "because"), ("x-why-bin", b"\x00\xff")))
        context.abort(next(one for one in grpc.StatusCode if one.name == code), text)

    def status_after(self, message, context):
        yield b"one"
        yield b"two"
        context.set_trailing_metadata((("x-after", "yes"),))
        context.abort(grpc.StatusCode.DATA_LOSS, "after two")

    def metadata(self, message, context):
        got = {name: value for name, value in context.invocation_metadata() if name.startswith("x-test")}
        context.send_initial_metadata((("x-first", "1"), ("x-first-bin", b"\x00\x01\xfe")))
        context.set_trailing_metadata((("x-last", "2"), ("x-last", "3"), ("x-last-bin", b"\xff")))
        return repr(sorted(got.items())).encode()

    def wait(self, message, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(20)
        return b"not cancelled"

    def wait_stream(self, message, context):
        context.add_callback(self.cancelled.set)
        yield b"first"
        self.cancelled.wait(20)

    def time_left(self, message, context):
        left = context.time_remaining()
        return b"none" if left is None else b"some" if 0 < left <= 30 else repr(left).encode()

    def large(self, message, context):
        return b"x" * int(message)


def outcome(call) -> object:
    """What a call came to: its answer, or its code and details."""
    try:
        return call()
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


def calls(channel: grpc.Channel, handlers: Handlers, report) -> dict[str, object]:
    path = f"/{SERVICE}/"
    unary = lambda name: channel.unary_unary(path + name)
    results: dict[str, object] = {}

    def take(name: str, call) -> None:
        results[name] = outcome(call)

    take("unary", lambda: unary("Unary")(b"hello", timeout=20))
    take("unary empty", lambda: unary("Unary")(b"", timeout=20))
    take("unary 20 MiB up and down", lambda: len(unary("Unary")(b"x" * (20 * MIB), timeout=60)))
    take("answer of 20 MiB", lambda: len(unary("Large")(str(20 * MIB).encode(), timeout=60)))
    take("server stream", lambda: list(channel.unary_stream(path + "ServerStream")(b"1000", timeout=20)) == [b"%d" % n for n in range(1000)])
    take("server stream of none", lambda: list(channel.unary_stream(path + "ServerStream")(b"0", timeout=20)))
    take("client stream", lambda: len(channel.stream_unary(path + "ClientStream")((b"%d" % n for n in range(1000)), timeout=20)))
    take("client stream of none", lambda: channel.stream_unary(path + "ClientStream")(iter(()), timeout=20))
    take("both", lambda: ping_pong(channel, path, 200))
    take("both at once", lambda: len(list(channel.stream_stream(path + "Both")((b"x" * 1000 for _ in range(2000)), timeout=30))))
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            take(f"status {code.name}", lambda code=code: unary("Status")(f"{code.name} why: ä%\n".encode(), timeout=20))
    take("trailers of an error", lambda: trailers_of(lambda: unary("Status")(b"NOT_FOUND x", timeout=20)))
    take("error after two messages", lambda: stream_to_error(channel, path))
    take("metadata", lambda: metadata(unary("Metadata")))
    take("unknown method", lambda: unary("Nothing")(b"", timeout=20))
    take("unknown service", lambda: channel.unary_unary("/no.Such/Thing")(b"", timeout=20))
    take("time left goes on", lambda: unary("TimeLeft")(b"", timeout=20))
    take("no time limit", lambda: unary("TimeLeft")(b""))
    take("deadline", lambda: cancelled(handlers, lambda: unary("Wait")(b"", timeout=0.5)))
    take("deadline reaches the server", lambda: handlers.cancelled.wait(10))
    take("cancelled", lambda: cancel(channel, handlers, path))
    take("cancel reaches the server", lambda: handlers.cancelled.wait(10))
    take("gzip", lambda: unary("Unary")(b"a" * 100_000, timeout=20, compression=grpc.Compression.Gzip) == b"a" * 100_000)
    take("deflate", lambda: unary("Unary")(b"a" * 100_000, timeout=20, compression=grpc.Compression.Deflate) == b"a" * 100_000)
    take("100 at once", lambda: at_once(unary("Unary")))
    take("after all", lambda: unary("Unary")(b"still here", timeout=20))
    return results


def ping_pong(channel: grpc.Channel, path: str, times: int) -> object:
    """Each message waits for the answer to the one before: nothing may be held back on the way."""
    answers: list[bytes] = []
    arrived = threading.Semaphore(1)

    def messages():
        for number in range(times):
            if not arrived.acquire(timeout=15):
                return
            yield b"m%d" % number

    for answer in channel.stream_stream(path + "Both")(messages(), timeout=30):
        answers.append(answer)
        arrived.release()
    return len(answers)


def trailers_of(call) -> object:
    try:
        call()
    except grpc.RpcError as error:
        return sorted((name, value) for name, value in error.trailing_metadata() if name.startswith("x-"))


def stream_to_error(channel: grpc.Channel, path: str) -> object:
    got = []
    try:
        for message in channel.unary_stream(path + "StatusAfter")(b"", timeout=20):
            got.append(message)
    except grpc.RpcError as error:
        return got, error.code().name, error.details(), [pair for pair in error.trailing_metadata() if pair[0].startswith("x-")]


def metadata(method) -> object:
    answer, call = method.with_call(b"", timeout=20, metadata=(("x-test", "a, b"), ("x-test-bin", b"\x00\xff"), ("x-test-2", "c")))
    mine = lambda pairs: sorted(pair for pair in pairs if pair[0].startswith(("x-first", "x-last")))
    return answer, mine(call.initial_metadata()), mine(call.trailing_metadata())


def cancelled(handlers: Handlers, call) -> object:
    handlers.cancelled.clear()
    try:
        return call()
    except grpc.RpcError as error:
        return error.code().name


def cancel(channel: grpc.Channel, handlers: Handlers, path: str) -> object:
    handlers.cancelled.clear()
    call = channel.unary_stream(path + "WaitStream")(b"", timeout=20)
    first = next(call)
    call.cancel()
    return first, call.code().name


def at_once(method) -> object:
    pending = [method.future(b"%d" % number, timeout=20) for number in range(100)]
    return [one.result() for one in pending] == [b"%d" % number for number in range(100)]


def main() -> None:
    given = arguments(__doc__)
    report = Comparison("grpc", given.work)
    leaf = certificates.make(given.work / "certificates", HOST)
    handlers = Handlers()
    server = grpc.server(futures.ThreadPoolExecutor(64), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Stand(given.stand, given.work, [Route(port, scheme="h2c")], certificate=leaf if given.tls else None) as stand:
            with channel(port, None) as direct:
                expected = calls(direct, handlers, report)
            ways = {"h2c": (stand.port, None), "TLS": (stand.tls_port, leaf)}
            for way, (to, trust) in ways.items():
                if not to:
                    continue
                with channel(to, trust) as through:
                    got = calls(through, handlers, report)
                for name, result in got.items():
                    if given.only in name:
                        report.add(f"{way}: {name}", repr(expected[name]), repr(result))
    finally:
        server.stop(None).wait()
    report.end(only_differences=True)


def channel(port: int, leaf: certificates.Leaf | None) -> grpc.Channel:
    options = [*OPTIONS, ("grpc.default_authority", f"{HOST}:{port}"), ("grpc.enable_retries", 0)]
    if leaf is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
    options.append(("grpc.ssl_target_name_override", HOST))
    return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(leaf.authority.read_bytes()), options=options)


if __name__ == "__main__":
    main()
