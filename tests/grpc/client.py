"""client.py ADDRESS [CA]: grpcio speaks to tests/grpc_server.c: the four kinds, metadata, status details, deadlines, cancellation,
large messages, gzip, health, reflection, many threads, drain (the caller ends the server when told)."""

import os
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ADDRESS = sys.argv[1]
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SERVICE = "/lockstep.test.Echo/"


def channel(**more):
    if len(sys.argv) > 2:
        with open(sys.argv[2], "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        return grpc.secure_channel(ADDRESS, credentials, options=UNLIMITED, **more)
    return grpc.insecure_channel(ADDRESS, options=UNLIMITED, **more)


class Echo:
    def __init__(self, c):
        self.one = c.unary_unary(SERVICE + "One")
        self.down = c.unary_stream(SERVICE + "Down")
        self.up = c.stream_unary(SERVICE + "Up")
        self.both = c.stream_stream(SERVICE + "Both")
        self.none = c.unary_unary(SERVICE + "None")


def fails(code, call):
    try:
        call()
    except grpc.RpcError as e:
        assert e.code() == code, (e.code(), e.details())
        return e
    raise AssertionError(f"{code} was expected")


def kinds(e):
    numbers = [b"%d" % i for i in range(2000)]
    assert e.one(b"hi", timeout=20) == b"hi"
    assert e.one(b"", timeout=20) == b""
    assert list(e.down(b"a", metadata=(("x-count", "5000"),), timeout=60)) == [b"a"] * 5000
    assert e.up(iter(numbers), timeout=60) == b"".join(numbers)
    assert list(e.both(iter(numbers), timeout=60)) == numbers
    ping = []

    def one_by_one():  # the next message only when the answer to the last one is there
        for i in range(100):
            while len(ping) < i:
                time.sleep(0.0005)
            yield b"%d" % i

    for m in e.both(one_by_one(), timeout=60):
        ping.append(m)
    assert len(ping) == 100


def statuses(e):
    _, call = e.one.with_call(b"x", metadata=(("x-echo", "v"), ("x-echo-bin", b"\0\xff\1")))
    assert ("x-echo", "v") in [tuple(m) for m in call.initial_metadata()]
    assert ("x-echo-bin", b"\0\xff\1") in [tuple(m) for m in call.trailing_metadata()]
    error = fails(grpc.StatusCode.NOT_FOUND, lambda: e.one(b"x", metadata=(("x-status", "5"),)))
    assert error.details() == "wished: 100% \u00e4", error.details()
    assert ("grpc-status-details-bin", b"\x08\x05\x12\x04here") in [tuple(m) for m in error.trailing_metadata()]
    fails(grpc.StatusCode.UNIMPLEMENTED, lambda: e.none(b""))
    start = time.time()
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: e.one(b"x", metadata=(("x-sleep-ms", "10000"),), timeout=0.2))
    assert time.time() - start < 5
    assert e.one(b"x", metadata=(("x-sleep-ms", "100"),), timeout=20) == b"x"
    stream = e.down(b"y" * 1000, metadata=(("x-count", "100000000"),))
    for _ in range(100):
        next(stream)
    stream.cancel()
    fails(grpc.StatusCode.CANCELLED, lambda: list(stream))


def sizes(e):
    big = os.urandom(100 * 1000 * 1000)
    assert e.one(big, timeout=120) == big
    assert e.up(iter([big[:30000000]] * 3), timeout=120) == big[:30000000] * 3
    fails(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: e.one(bytes(270 * 1000 * 1000), timeout=120))
    got = sum(len(m) for m in e.down(bytes(100000), metadata=(("x-count", "3000"),), timeout=120))
    assert got == 300000000
    zipped = Echo(channel(compression=grpc.Compression.Gzip))
    text = b"compressible " * 100000
    assert zipped.one(text, metadata=(("x-gzip", "1"),), timeout=60) == text
    assert list(zipped.both(iter([text] * 20), metadata=(("x-gzip", "1"),), timeout=60)) == [text] * 20


def services(c):
    health = health_pb2_grpc.HealthStub(c)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health.Check(health_pb2.HealthCheckRequest()).status == serving
    fails(grpc.StatusCode.NOT_FOUND, lambda: health.Check(health_pb2.HealthCheckRequest(service="none")))
    watch = health.Watch(health_pb2.HealthCheckRequest(service="none"))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
    db = ProtoReflectionDescriptorDatabase(c)
    names = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
    assert list(db.get_services()) == names + ["lockstep.test.Echo"], db.get_services()
    assert db.FindFileContainingSymbol("lockstep.test.Echo").name == "echo.proto"
    assert db.FindFileContainingSymbol("grpc.health.v1.HealthCheckResponse.ServingStatus").name == "grpc/health/v1/health.proto"
    try:
        db.FindFileByName("none.proto")
        raise AssertionError("there is no such file")
    except KeyError:
        pass


def threads(e):
    wrong = []

    def work(n):
        try:
            for i in range(200):
                text = b"%d-%d" % (n, i)
                assert e.one(text, timeout=60) == text
                if i % 20 == 0:
                    assert len(list(e.down(text, metadata=(("x-count", "50"),), timeout=60))) == 50
        except Exception as problem:  # pylint: disable=broad-except
            wrong.append(problem)

    all_threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for t in all_threads:
        t.start()
    for t in all_threads:
        t.join()
    assert not wrong, wrong[0]


def drained(c, e, pid):
    health = health_pb2_grpc.HealthStub(c).Watch(health_pb2.HealthCheckRequest())
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    slow = e.one.future(b"slow", metadata=(("x-sleep-ms", "800"),), timeout=30)
    time.sleep(0.3)
    os.kill(pid, 15)
    assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert slow.result() == b"slow"  # what is there goes on


def main():
    c = channel()
    e = Echo(c)
    for name, part in (("kinds", kinds), ("statuses", statuses), ("sizes", sizes), ("threads", threads)):
        start = time.time()
        part(e)
        print(f"{name}: {time.time() - start:.1f} s", flush=True)
    services(c)
    if "PID" in os.environ:
        drained(c, e, int(os.environ["PID"]))
    print("ok")


main()
