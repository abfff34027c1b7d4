"""Our .proto files beside Google's: each message, field, number, type, oneof and method of ours is the API's. Arguments:
descriptor sets (build/proto/.../*.desc)."""
import sys

import google.cloud.bigtable_admin_v2.types as admin
import google.cloud.bigtable_v2.types as data
from google.longrunning import operations_pb2  # noqa: F401
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, empty_pb2, field_mask_pb2, timestamp_pb2, wrappers_pb2
from google.rpc import status_pb2

official = {}


def add(d):
    official[d.full_name] = d
    for n in d.nested_types:
        add(n)


for module in (admin, data):
    for name in dir(module):
        kind = getattr(module, name)
        if hasattr(kind, "pb") and hasattr(kind, "meta"):
            add(kind.pb().DESCRIPTOR)
for module in (operations_pb2, any_pb2, duration_pb2, empty_pb2, field_mask_pb2, timestamp_pb2, wrappers_pb2, status_pb2):
    for d in module.DESCRIPTOR.message_types_by_name.values():
        add(d)

seen = bad = 0


def wrong(text):
    global bad
    bad += 1
    print(text)


def plain(name):  # proto-plus puts an underscore behind Python's words
    return name.rstrip("_")


def compare(name, message):
    global seen
    theirs = official.get(name)
    if not theirs:
        return wrong(f"{name}: Google has no such message")
    fields = {plain(f.name): f for f in theirs.fields}
    for f in message.field:
        seen += 1
        t = fields.get(f.name)
        if not t:
            wrong(f"{name}.{f.name}: Google has no such field")
        elif (t.number, t.type, t.is_repeated) != (f.number, f.type, f.label == f.LABEL_REPEATED):
            wrong(f"{name}.{f.name}: {f.number} {f.type} {f.label}, Google's is {t.number} {t.type}")
        elif f.type_name and (t.message_type or t.enum_type).full_name != f.type_name[1:]:
            wrong(f"{name}.{f.name}: {f.type_name}")
        elif f.HasField("oneof_index") != (t.containing_oneof is not None):
            wrong(f"{name}.{f.name}: in a oneof or not")
    for e in message.enum_type:
        values = {v.name: v.number for v in theirs.enum_types_by_name[e.name].values}
        for v in e.value:
            if values.get(v.name) != v.number:
                wrong(f"{name}.{e.name}.{v.name}: {v.number}, Google's is {values.get(v.name)}")
    for nested in message.nested_type:
        compare(f"{name}.{nested.name}", nested)


done = set()
for path in sys.argv[1:]:
    files = descriptor_pb2.FileDescriptorSet.FromString(open(path, "rb").read())
    for file in files.file:
        if file.name not in done:
            done.add(file.name)
            for m in file.message_type:
                compare(f"{file.package}.{m.name}", m)
print(f"protos: {seen} fields of {len(done)} files are Google's" if not bad else f"protos: {bad} differ")
sys.exit(bad > 0)
