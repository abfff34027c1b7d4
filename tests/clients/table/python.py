"""Google's Python client drives `lockstep table serve` (BIGTABLE_EMULATOR_HOST): admin, mutations, every filter, big cells,
ranges, conditional and read-modify-write rows, errors. Prints what it proved; exit 1 with the first thing that is wrong."""
import datetime
import os
import struct
import sys
import uuid

import grpc
from google.api_core import exceptions
from google.cloud import bigtable
from google.cloud.bigtable import column_family as cf, row_filters as f
from google.cloud.bigtable.row_set import RowRange, RowSet
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport

T = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)


def at(ms):
    return T + datetime.timedelta(milliseconds=ms)


checks = 0


def same(got, expected, what):
    global checks
    checks += 1
    if got != expected:
        sys.exit(f"{what}: got {got!r}, expected {expected!r}")


def fails(kind, function, words, what):
    global checks
    checks += 1
    try:
        function()
    except kind as e:
        if words not in str(e):
            sys.exit(f"{what}: {e!s} does not say {words!r}")
        return
    sys.exit(f"{what}: no {kind.__name__}")


def cells(rows):
    """[(row, family, qualifier, ms since T, value, labels)] in order."""
    out = []
    for r in rows:
        for family, columns in r.cells.items():
            for q, versions in columns.items():
                for c in versions:
                    out.append((r.row_key.decode(), family, q.decode(), round((c.timestamp - T).total_seconds() * 1000),
                                c.value.decode(), list(c.labels)))
    return out


def short(rows):
    return " ".join(f"{r}/{fam}:{q}@{ms}={v}" for r, fam, q, ms, v, _ in cells(rows))


raw = BigtableClient(transport=BigtableGrpcTransport(
    channel=grpc.insecure_channel(os.environ["BIGTABLE_EMULATOR_HOST"], [("grpc.max_receive_message_length", -1)])))
client = bigtable.Client(project="p", admin=True)
instance = client.instance("i")
table = instance.table("python-" + uuid.uuid4().hex[:8])

# --- admin ---
table.create(initial_split_keys=["m"], column_families={"a": cf.MaxVersionsGCRule(3), "b": cf.GCRuleUnion(
    [cf.MaxAgeGCRule(datetime.timedelta(days=3650)), cf.GCRuleIntersection([cf.MaxVersionsGCRule(5), cf.MaxAgeGCRule(
        datetime.timedelta(hours=1))])]), "c": None})
same(table.exists(), True, "exists")
same(table.table_id in [t.table_id for t in instance.list_tables()], True, "list")
families = table.list_column_families()
same(sorted(families), ["a", "b", "c"], "families")
same(families["a"].gc_rule, cf.MaxVersionsGCRule(3), "a's rule")
same(families["b"].gc_rule.rules[1].rules[0], cf.MaxVersionsGCRule(5), "b's rule")
fails(exceptions.AlreadyExists, lambda: instance.table(table.table_id).create(), "already exists", "create twice")
table.column_family("d", cf.MaxVersionsGCRule(1)).create()
d = table.column_family("d", cf.MaxVersionsGCRule(2))
d.update()
same(table.list_column_families()["d"].gc_rule, cf.MaxVersionsGCRule(2), "an updated rule")
d.delete()
same(sorted(table.list_column_families()), ["a", "b", "c"], "a dropped family")
fails(exceptions.NotFound, lambda: d.delete(), "no family d", "drop it again")

# --- mutations ---
r = table.direct_row("r1")
for ms in (1, 2, 3, 4):
    r.set_cell("a", "q", f"v{ms}", timestamp=at(ms))
r.set_cell("a", "x", "xx", timestamp=at(1))
r.set_cell("c", b"", "empty qualifier", timestamp=at(1))
r.commit()
same(short([table.read_row("r1")]), "r1/a:q@4=v4 r1/a:q@3=v3 r1/a:q@2=v2 r1/a:x@1=xx r1/c:@1=empty qualifier",
     "read a row, oldest version is garbage")
r = table.direct_row("r1")
r.delete_cell("a", "q", time_range=f.TimestampRange(start=at(3), end=at(4)))
r.delete_cells("c", [b""])
r.commit()
same(short([table.read_row("r1")]), "r1/a:q@4=v4 r1/a:q@2=v2 r1/a:q@1=v1 r1/a:x@1=xx", "delete from columns")


def one(key, family="c"):
    row = table.direct_row(key)
    row.set_cell(family, "q", "v", timestamp=at(0))
    return row


statuses = table.mutate_rows([one("m0"), one("m1", "zz"), one("m2")])
same([s.code for s in statuses], [0, 5, 0], "mutate_rows has a status for each entry")
same("zz" in statuses[1].message, True, "which names the family")
fails(exceptions.NotFound, lambda: raw.mutate_row(table_name=table.name, row_key=b"r", mutations=[
    {"set_cell": {"family_name": "zz", "column_qualifier": b"q", "value": b"v"}}]), "zz", "an unknown family")
fails(exceptions.InvalidArgument, lambda: raw.mutate_row(
    table_name=table.name, row_key=b"r", mutations=[{"set_cell": {"family_name": "a", "timestamp_micros": 5}}]),
    "milliseconds", "a time within a millisecond")
fails(exceptions.InvalidArgument, lambda: raw.mutate_row(
    table_name=table.name, row_key=b"", mutations=[{"delete_from_row": {}}]), "key", "an empty key")
fails(exceptions.InvalidArgument, lambda: raw.mutate_row(
    table_name=table.name, row_key=b"r", mutations=[]), "no mutations", "no mutations")
fails(exceptions.NotFound, lambda: client.instance("i").table("nix").read_row("r"), "nix", "an unknown table")
fails(exceptions.InvalidArgument, lambda: raw.mutate_row(
    table_name="tables/x", row_key=b"r", mutations=[{"delete_from_row": {}}]), "projects/", "a name of another form")

# --- conditional, append, increment ---
w = table.conditional_row("cond", filter_=f.ColumnQualifierRegexFilter(b"q"))
w.set_cell("c", "yes", "1", timestamp=at(0), state=True)
w.set_cell("c", "q", "1", timestamp=at(0), state=False)
same(w.commit(), False, "check and mutate: not there")
w = table.conditional_row("cond", filter_=f.ColumnQualifierRegexFilter(b"q"))
w.set_cell("c", "yes", "1", timestamp=at(0), state=True)
same(w.commit(), True, "check and mutate: there")
same(short([table.read_row("cond")]), "cond/c:q@0=1 cond/c:yes@0=1", "what it wrote")
w = table.append_row("rmw")
w.increment_cell_value("c", "n", 5)
w.append_cell_value("a", "t", "ab")
w.append_cell_value("a", "t", "cd")
w.increment_cell_value("c", "n", -7)
got = w.commit()
same((got["c"][b"n"][0][0], got["a"][b"t"][0][0]), (struct.pack(">q", -2), b"abcd"), "read, modify, write")
fails(exceptions.InvalidArgument, lambda: [x := table.append_row("rmw"), x.increment_cell_value("a", "t", 1), x.commit()],
      "4 bytes", "increment a text")

# --- ranges of rows ---
table.drop_by_prefix("m")
table.mutate_rows([one(k) for k in ("k1", "k2", "k3", "k4", "l1")])


def keys(**kw):
    return " ".join(x.row_key.decode() for x in table.read_rows(**kw))


same(keys(start_key="k", end_key="k9"), "k1 k2 k3 k4", "a range")
same(keys(start_key="k1", end_key="k3", end_inclusive=True, limit=2), "k1 k2", "a limit")
s = RowSet()
s.add_row_key("l1")
s.add_row_key("k2")
s.add_row_key("none")
s.add_row_range(RowRange(start_key="k2", end_key="k4", start_inclusive=False, end_inclusive=True))
s.add_row_range_with_prefix("k3")
same(keys(row_set=s), "k2 k3 k4 l1", "keys and ranges, a row once")
backwards = raw.read_rows(request={"table_name": table.name, "reversed": True, "rows_limit": 3,
                                                          "rows": {"row_ranges": [{"start_key_closed": b"k"}]}})
same(b" ".join(c.row_key for m in backwards for c in m.chunks if c.row_key), b"rmw r1 l1", "reversed")
fails(exceptions.InvalidArgument, lambda: list(raw.read_rows(request={"table_name": table.name, "rows": {
    "row_ranges": [{"start_key_closed": b"z", "end_key_open": b"a"}]}})), "behind", "a range that is upside down")

# --- every filter ---
r = table.direct_row("f")
for fam, q, ms, v in (("a", "q1", 3, "v3"), ("a", "q1", 2, "v2"), ("a", "q2", 5, "abc"), ("c", "q1", 7, "xyz"),
                      ("c", "q3", 1, "\u00e4")):
    r.set_cell(fam, q, v, timestamp=at(ms))
r.commit()
ALL = "f/a:q1@3=v3 f/a:q1@2=v2 f/a:q2@5=abc f/c:q1@7=xyz f/c:q3@1=\u00e4"
P = f.PassAllFilter(True)
for what, filter_, expected in [
        ("pass", P, ALL), ("block", f.BlockAllFilter(True), ""),
        ("row regex", f.RowKeyRegexFilter(b"[e-g]"), ALL), ("row regex is anchored", f.RowKeyRegexFilter(b""), None),
        ("row regex, another row", f.RowKeyRegexFilter(b"g"), ""),
        ("family", f.FamilyNameRegexFilter("c"), "f/c:q1@7=xyz f/c:q3@1=\u00e4"),
        ("qualifier", f.ColumnQualifierRegexFilter(b"q[12]"), "f/a:q1@3=v3 f/a:q1@2=v2 f/a:q2@5=abc f/c:q1@7=xyz"),
        ("value", f.ValueRegexFilter(b"v."), "f/a:q1@3=v3 f/a:q1@2=v2"),
        ("value of bytes", f.ValueRegexFilter(b"\\C\\C"), "f/a:q1@3=v3 f/a:q1@2=v2 f/c:q3@1=\u00e4"),
        ("exact value", f.ExactValueFilter(b"abc"), "f/a:q2@5=abc"),
        ("column range", f.ColumnRangeFilter("a", b"q1", b"q2", inclusive_end=False), "f/a:q1@3=v3 f/a:q1@2=v2"),
        ("column range open", f.ColumnRangeFilter("a", b"q1", inclusive_start=False), "f/a:q2@5=abc"),
        ("time range", f.TimestampRangeFilter(f.TimestampRange(start=at(2), end=at(5))), "f/a:q1@3=v3 f/a:q1@2=v2"),
        ("value range", f.ValueRangeFilter(b"v2", b"v3"), "f/a:q1@3=v3 f/a:q1@2=v2"),
        ("value range open", f.ValueRangeFilter(b"v2", b"v3", inclusive_start=False), "f/a:q1@3=v3"),
        ("row limit", f.CellsRowLimitFilter(2), "f/a:q1@3=v3 f/a:q1@2=v2"),
        ("row offset", f.CellsRowOffsetFilter(3), "f/c:q1@7=xyz f/c:q3@1=\u00e4"),
        ("column limit", f.CellsColumnLimitFilter(1), "f/a:q1@3=v3 f/a:q2@5=abc f/c:q1@7=xyz f/c:q3@1=\u00e4"),
        ("strip", f.StripValueTransformerFilter(True), "f/a:q1@3= f/a:q1@2= f/a:q2@5= f/c:q1@7= f/c:q3@1="),
        ("chain", f.RowFilterChain([f.FamilyNameRegexFilter("a"), f.CellsColumnLimitFilter(1)]), "f/a:q1@3=v3 f/a:q2@5=abc"),
        ("interleave", f.RowFilterUnion([f.ExactValueFilter(b"abc"), f.FamilyNameRegexFilter("c")]),
         "f/a:q2@5=abc f/c:q1@7=xyz f/c:q3@1=\u00e4"),
        ("interleave twice", f.RowFilterUnion([f.ExactValueFilter(b"abc"), f.ExactValueFilter(b"abc")]),
         "f/a:q2@5=abc f/a:q2@5=abc"),
        ("condition, yes", f.ConditionalRowFilter(f.ExactValueFilter(b"abc"), f.CellsRowLimitFilter(1),
                                                  f.BlockAllFilter(True)), "f/a:q1@3=v3"),
        ("condition, no", f.ConditionalRowFilter(f.ExactValueFilter(b"nix"), P, f.CellsRowOffsetFilter(4)),
         "f/c:q3@1=\u00e4"),
        ("condition, nothing", f.ConditionalRowFilter(f.ExactValueFilter(b"nix"), true_filter=P), ""),
        ("sink", f.RowFilterChain([f.RowFilterUnion([f.RowFilterChain([f.ExactValueFilter(b"abc"), f.SinkFilter(True)]),
                                                     f.FamilyNameRegexFilter("c")]), f.CellsRowLimitFilter(1)]),
         "f/a:q2@5=abc f/c:q1@7=xyz"),
        ("a bad pattern", f.ValueRegexFilter(b"["), None), ("limit 0", f.CellsRowLimitFilter(0), None),
        ("a chain of one", f.RowFilterChain([P]), None), ("sample of 1", f.RowSampleFilter(1.0), None),
        ("a bad label", f.ApplyLabelFilter("A B"), None)]:
    if expected is None:
        fails(exceptions.InvalidArgument, lambda: list(table.read_rows(start_key="f", end_key="g", filter_=filter_)), "",
              what)
    else:
        same(short(table.read_rows(start_key="f", end_key="g", filter_=filter_)), expected, what)
labels = cells(table.read_rows(start_key="f", end_key="g", filter_=f.RowFilterUnion([
    f.RowFilterChain([f.ExactValueFilter(b"abc"), f.ApplyLabelFilter("l-1")]), f.ExactValueFilter(b"xyz")])))
same([x[5] for x in labels], [["l-1"], []], "labels")

# --- samples of rows, big cells, wide rows ---
same({s.code for s in table.mutate_rows([one(f"n{i:05}") for i in range(4000)])}, {0}, "4,000 rows")
some = sum(1 for _ in table.read_rows(start_key="n", end_key="o", filter_=f.RowSampleFilter(0.25)))
same(700 < some < 1300, True, f"a sample of {some} rows")
same(list(table.sample_row_keys())[-1].row_key, b"", "the last sample is the end")
big = os.urandom(20 << 20)
r = table.direct_row("big")
r.set_cell("a", "big", big, timestamp=at(0))
r.set_cell("a", "next", "small", timestamp=at(0))
r.commit()
row = table.read_row("big")
same(row.cells["a"][b"big"][0].value == big, True, "a cell of 20 MiB")
same(row.cells["a"][b"next"][0].value, b"small", "the cell behind it")
wide = table.direct_row("wide")
for i in range(20000):
    wide.set_cell("a", f"q{i:05}", b"v" * (i % 300), timestamp=at(0))
wide.commit()
same([len(v[0].value) for q, v in sorted(table.read_row("wide").cells["a"].items())], [i % 300 for i in range(20000)],
     "20,000 cells in a row")
same(table.read_row("wide", filter_=f.ColumnRangeFilter("a", b"q10001", b"q10001")).cells["a"][b"q10001"][0].value,
     b"v" * (10001 % 300), "one of them")
hidden = list(table.read_rows(filter_=f.ValueRegexFilter(b"no such value")))
same(hidden, [], "a scan that shows nothing")

# --- ends ---
table.drop_by_prefix("n")
same(keys(start_key="n", end_key="o"), "", "drop by prefix")
table.truncate()
same(keys(), "", "truncate")
same(client.instance_admin_client.get_instance(name="projects/p/instances/i").name, "projects/p/instances/i", "instance")
admin = client.table_admin_client
token = admin.generate_consistency_token(name=table.name).consistency_token
same(admin.check_consistency(name=table.name, consistency_token=token).consistent, True, "consistency")
fails(exceptions.InvalidArgument, lambda: admin.check_consistency(name=table.name, consistency_token="x"), "token", "a token")
admin.update_table(table={"name": table.name, "deletion_protection": True}, update_mask={"paths": ["deletion_protection"]}
                   ).result()
same(admin.get_table(name=table.name).deletion_protection, True, "protection")
fails(exceptions.FailedPrecondition, table.delete, "protected", "delete what is protected")
admin.update_table(table={"name": table.name}, update_mask={"paths": ["deletion_protection"]}).result()
op = admin.snapshot_table(name=table.name, cluster="projects/p/instances/i/clusters/lockstep", snapshot_id="s-" + table.table_id)
snapshot = op.result()
same(snapshot.source_table.name, table.name, "a snapshot")
fails(exceptions.FailedPrecondition, table.delete, "pin", "delete what a snapshot holds")
same(snapshot.name in [s.name for s in admin.list_snapshots(parent="projects/p/instances/i/clusters/lockstep")], True, "list")
admin.delete_snapshot(name=snapshot.name)
table.delete()
same(table.exists(), False, "deleted")
print(f"python: {checks} checks")
