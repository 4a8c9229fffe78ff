"""Reads an exported session back with tools that are not hud's, and holds it to what DuckDB reads of the session's files.

    read_back.py FORMAT SESSION FILE [loose]

`loose`: names are hostile and rows nonsense, so only structure and sums are compared. Prints what was found as JSON. Fails
by an assertion that says what differs.
"""

import collections
import gzip
import json
import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile

import duckdb

FORMAT, SESSION, FILE = sys.argv[1:4]
LOOSE = "loose" in sys.argv[4:]
TABLES = {
    "polls": "ts BIGINT, dur BIGINT, task_id BIGINT, type_id BIGINT, tid INT, cpu INT, wake_delay BIGINT",
    "off_cpu": "ts BIGINT, dur BIGINT, tid INT, cpu INT, state VARCHAR, task_id BIGINT, stack_id BIGINT",
    "samples": "ts BIGINT, tid INT, cpu INT, task_id BIGINT, stack_id BIGINT, weight BIGINT",
    "wakes": "ts BIGINT, task_id BIGINT, waker_task_id BIGINT, waker_tid INT",
    "spawns": "ts BIGINT, task_id BIGINT, type_id BIGINT, tid INT",
    "ends": "ts BIGINT, task_id BIGINT",
    "tasks": "ts BIGINT, task_id BIGINT, type_id BIGINT",
    "task_types": "type_id BIGINT, name VARCHAR, kind VARCHAR",
    "stacks": "stack_id BIGINT, frame_ids BIGINT[]",
    "frames": "frame_id BIGINT, module_id BIGINT, function VARCHAR, line INT, inline_depth INT",
    "modules": "module_id BIGINT, path VARCHAR, build_id VARCHAR",
    "process": "ts BIGINT, rss BIGINT, threads INT",
    "threads": "ts BIGINT, tid INT, name VARCHAR",
}
db = duckdb.connect()


def open_tables(session):
    for table, columns in TABLES.items():
        folder = os.path.join(session, table)
        files = sorted(f for f in os.listdir(folder) if f.endswith(".parquet")) if os.path.isdir(folder) else []
        if files:
            paths = [os.path.join(folder, f) for f in files]
            db.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM read_parquet({paths!r}, union_by_name = true)")
        else:
            db.execute(f"CREATE OR REPLACE TABLE {table} ({columns})")


def rows(sql):
    return db.execute(sql).fetchall()


def one(sql):
    return rows(sql)[0][0] or 0


def same(what, ours, theirs):
    """Two collections of the same things, each as often."""
    ours, theirs = collections.Counter(ours), collections.Counter(theirs)
    if ours != theirs:
        extra, missing = list((ours - theirs).items())[:3], list((theirs - ours).items())[:3]
        raise AssertionError(f"{what}: {sum(ours.values())} exported, {sum(theirs.values())} in the session; "
                             f"only exported {extra}; only in the session {missing}")


open_tables(SESSION)
FRAME = {
    row[0]: row[1]
    for row in rows("""SELECT frame_id, coalesce(function, '<' || split_part(nullif(path, ''), '/', -1) || '>', '<unknown>')
                       FROM frames f LEFT JOIN modules m USING (module_id)""")
}
# Outermost first.
STACK = {id: tuple(FRAME.get(f, "<unknown>") for f in reversed(frames)) for id, frames in
         rows("SELECT stack_id, frame_ids FROM stacks")}
TYPE_OF = dict(rows("""SELECT task_id, min(type_id) FROM (SELECT task_id, type_id FROM tasks UNION ALL
                       SELECT task_id, type_id FROM spawns) WHERE type_id IS NOT NULL GROUP BY 1"""))
TYPES = {id: (name, kind) for id, name, kind in rows("SELECT type_id, name, kind FROM task_types")}


def task_name(task, type_id=None):
    return TYPES.get(type_id if type_id is not None else TYPE_OF.get(task), ("<unknown type>", ""))[0]


def task_of(task):
    name, kind = TYPES.get(TYPE_OF.get(task), (None, None))
    return name if kind == "task" else None


def perfetto():
    from google.protobuf.unknown_fields import UnknownFieldSet
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

    trace = pb.Trace()
    with open(FILE, "rb") as file:
        trace.ParseFromString(file.read())
    assert trace.packet, "no packet"
    interned = collections.defaultdict(dict)
    tracks, events, samples, counted = {}, [], [], {}
    clock = None
    for index, packet in enumerate(trace.packet):
        for message in [packet] + [value for field, value in packet.ListFields() if field.message_type]:
            assert not len(UnknownFieldSet(message)), f"fields of {message.DESCRIPTOR.name} that it does not have"
        assert packet.trusted_packet_sequence_id == 1
        if index == 0:
            assert packet.sequence_flags == pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            assert packet.first_packet_on_sequence and packet.clock_snapshot.clocks
            clock = packet.trace_packet_defaults.timestamp_clock_id
            assert clock == packet.clock_snapshot.primary_trace_clock
            assert clock in [c.clock_id for c in packet.clock_snapshot.clocks]
        else:
            assert packet.sequence_flags == pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        for field, values in packet.interned_data.ListFields():
            for value in values:
                assert value.iid not in interned[field.name], f"{field.name} {value.iid} is told twice"
                interned[field.name][value.iid] = value
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert track.uuid and track.uuid not in tracks
            assert not track.parent_uuid or track.parent_uuid in tracks
            tracks[track.uuid] = track
        elif packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in tracks, "an event of a track that was not described"
            name = interned["event_names"][event.name_iid].name if event.name_iid else None
            categories = [interned["event_categories"][c].name for c in event.category_iids]
            values = {}
            for a in event.debug_annotations:
                value = a.string_value_iid and interned["debug_annotation_string_values"][a.string_value_iid].str
                values[interned["debug_annotation_names"][a.name_iid].name] = value or a.int_value
            events.append((packet.timestamp, index, event, name, categories, values, stack(interned, event.callstack_iid)))
        elif packet.HasField("perf_sample"):
            sample = packet.perf_sample
            counted[sample.cpu] = sample.timebase_count
            samples.append((packet.timestamp, sample.tid, sample.cpu, stack(interned, sample.callstack_iid)))
            assert sample.tid in [t.thread.tid for t in tracks.values() if t.HasField("thread")] or LOOSE

    # What trace_processor does: sorts by time, what comes first in the file where times are equal, and nests slices.
    events.sort(key=lambda e: (e[0], e[1]))
    open_slices, slices = collections.defaultdict(list), []
    starts, ends, instants, counters = {}, [], 0, collections.defaultdict(list)
    for ts, _, event, name, categories, values, frames in events:
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            slice = [event.track_uuid, ts, None, name, categories[0], values, frames, len(open_slices[event.track_uuid])]
            open_slices[event.track_uuid].append(slice)
            slices.append(slice)
            ends.extend((flow, ts) for flow in event.terminating_flow_ids)
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            assert open_slices[event.track_uuid], "a slice ends that did not begin"
            slice = open_slices[event.track_uuid].pop()
            slice[2] = ts - slice[1]
        elif event.type == pb.TrackEvent.TYPE_INSTANT:
            instants += 1
            for flow in event.flow_ids:
                assert flow not in starts or LOOSE, "two wakes of one flow"
                starts[flow] = ts
        elif event.type == pb.TrackEvent.TYPE_COUNTER:
            counters[tracks[event.track_uuid].name].append((ts, event.counter_value))
    left_open = [s for all in open_slices.values() for s in all]
    assert all(s[4] == "task" for s in left_open), "a slice does not end"

    def thread(uuid):
        while uuid and not tracks[uuid].HasField("thread"):
            uuid = tracks[uuid].parent_uuid
        return tracks[uuid].thread.tid if uuid else None

    of = lambda *categories: [s for s in slices if s[4] in categories and thread(s[0]) is not None]
    polls, off = of("poll"), of("blocking", "asleep", "run_queue")
    assert len(polls) == one("SELECT count(*) FROM polls")
    assert len(off) == one("SELECT count(*) FROM off_cpu")
    arrows = [flow for flow, ts in ends if flow in starts and starts[flow] <= ts]
    assert len(samples) == one("SELECT count(*) FROM samples")
    if not LOOSE:
        same("polls", [(thread(s[0]), s[1], s[2], s[3], s[5]["task"]) for s in polls],
             [(tid, ts, dur, task_name(task, type_id), task) for tid, ts, dur, task, type_id in
              rows("SELECT tid, ts, dur, task_id, type_id FROM polls")])
        same("off_cpu", [(thread(s[0]), s[1], s[2], s[6]) for s in off],
             [(tid, ts, dur, STACK.get(id, ())) for tid, ts, dur, id in rows("SELECT tid, ts, dur, stack_id FROM off_cpu")])
        same("samples", samples, [(ts, tid, cpu, STACK.get(id, ())) for ts, tid, cpu, id in
                                  rows("SELECT ts, tid, cpu, stack_id FROM samples")])
        same("CPU time", counted.items(), rows("SELECT cpu, sum(weight)::BIGINT FROM samples GROUP BY cpu"))
        same("memory", counters["resident memory"], rows("SELECT ts, rss FROM process"))
        wakes = one("SELECT count(*) FROM wakes")
        assert instants == wakes + one("SELECT count(*) FROM spawns")
        assert len(arrows) == one("""SELECT count(*) FROM polls p WHERE EXISTS
            (FROM wakes w WHERE w.task_id = p.task_id AND w.ts = p.ts - p.wake_delay)""")
        lives = [s for s in slices if s[4] == "task"]
        assert all(s[7] == 0 for s in lives), "a task's life is inside of something"
    return {"slices": len(polls) + len(off), "samples": len(samples), "flows": len(arrows), "instants": instants,
            "tracks": len(tracks), "packets": len(trace.packet), "nested": sum(1 for s in polls if s[7] > 0),
            "task_tracks": len({s[0] for s in slices if thread(s[0]) is None and s[4] in ("poll", "task")})}


def stack(interned, iid):
    if not iid:
        return ()
    names = []
    for frame in interned["callstacks"][iid].frame_ids:
        frame = interned["frames"][frame]
        if frame.mapping_id:
            mapping = interned["mappings"][frame.mapping_id]
            assert all(path in interned["mapping_paths"] for path in mapping.path_string_ids)
            assert not mapping.build_id or mapping.build_id in interned["build_ids"]
        assert not frame.source_path_iid or frame.source_path_iid in interned["source_paths"]
        names.append(interned["function_names"][frame.function_name_id].str.decode())
    return tuple(names)


def pprof():
    from austin.format.pprof import profile_pb2 as pb

    profile = pb.Profile()
    with gzip.open(FILE) as file:
        profile.ParseFromString(file.read())
    text = profile.string_table
    assert text[0] == "" and len(set(text)) == len(text)
    kinds = [(text[t.type], text[t.unit]) for t in profile.sample_type]
    assert kinds == [("samples", "count"), ("cpu", "nanoseconds"), ("off_cpu_intervals", "count"), ("off_cpu", "nanoseconds")]
    functions = {f.id: f for f in profile.function}
    mappings = {m.id: m for m in profile.mapping}
    locations = {l.id: l for l in profile.location}
    assert 0 not in functions and 0 not in mappings and 0 not in locations
    for location in profile.location:
        assert location.line
        if location.mapping_id:
            mapping = mappings[location.mapping_id]
            assert mapping.memory_start <= location.address < mapping.memory_limit or location.address >= 2**64 - 4096
    same("build ids", [text[m.build_id] for m in profile.mapping if m.build_id],
         [id for _, id in rows("SELECT module_id, build_id FROM modules WHERE build_id IS NOT NULL")
          if id in {text[m.build_id] for m in profile.mapping}])
    sums, ours = [0] * 4, collections.Counter()
    tasks = collections.Counter()
    for sample in profile.sample:
        assert len(sample.value) == 4
        sums = [a + b for a, b in zip(sums, sample.value)]
        names = []
        for id in sample.location_id:
            # The innermost first.
            names.extend(text[functions[line.function_id].name] for line in locations[id].line)
        labels = {text[l.key]: text[l.str] if l.str else l.num for l in sample.label}
        ours[(labels.get("tid", 0), tuple(reversed(names)))] += sample.value[1] + sample.value[3]
        tasks[labels.get("task_type")] += sample.value[1]
    direct = [one(f"SELECT {sql}") for sql in
              ["count(*) FROM samples", "sum(weight)::BIGINT FROM samples", "count(*) FROM off_cpu", "sum(dur)::BIGINT FROM off_cpu"]]
    if not LOOSE:
        assert sums == direct, f"{sums} exported, {direct} in the session"
        theirs = collections.Counter()
        for tid, id, ns in rows("""SELECT tid, stack_id, sum(ns)::BIGINT FROM (SELECT tid, stack_id, weight AS ns FROM samples
                                   UNION ALL SELECT tid, stack_id, dur FROM off_cpu) GROUP BY ALL"""):
            theirs[(tid, STACK.get(id, ()))] += ns
        assert ours == theirs, "time by thread and stack differs"
        direct = collections.Counter()
        for task, ns in rows("SELECT task_id, sum(weight)::BIGINT FROM samples GROUP BY 1"):
            direct[task_of(task)] += ns
        assert +tasks == +direct, f"{tasks} exported, {direct} in the session"
    return {"samples": sums[0], "slices": sums[2], "entries": len(profile.sample),
            "inlined": sum(1 for l in profile.location if len(l.line) > 1),
            "comments": [text[c] for c in profile.comment]}


def folded():
    total, lines = 0, 0
    ours = collections.Counter()
    with open(FILE, encoding="utf-8", newline="\n") as file:
        for line in file.read().splitlines():
            frames, count = line.rsplit(" ", 1)
            total += int(count)
            lines += 1
            bare = [f.removesuffix("_[k]").removesuffix("_[i]") for f in frames.split(";")]
            ours[tuple(bare[1:])] += int(count)
    if not LOOSE:
        assert total == one("SELECT sum(weight)::BIGINT FROM samples")
        theirs = collections.Counter()
        for id, ns in rows("SELECT stack_id, sum(weight)::BIGINT FROM samples GROUP BY 1"):
            theirs[tuple(f.replace(";", ":") for f in STACK.get(id, ())) or ("<no stack>",)] += ns
        assert ours == theirs, "CPU time by stack differs"
    return {"entries": lines, "total": total}


def svg():
    root = ElementTree.parse(FILE).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title") if t.text]
    assert titles
    whole = next(t for t in titles if t.startswith("all ("))
    total = one("SELECT sum(weight)::BIGINT FROM samples")
    shown = float(whole.split("(")[1].split(" ")[0].replace(",", ""))
    if not LOOSE:
        assert abs(shown - total / 1000) < 1, f"{whole}: {total / 1000} µs"
    return {"frames": len(titles), "whole": whole}


def chrome():
    with open(FILE, encoding="utf-8") as file:
        trace = json.load(file)
    start = int(trace["otherData"]["start_ns"])
    by = collections.defaultdict(list)
    for event in trace["traceEvents"]:
        by[(event["ph"], event.get("cat", ""))].append(event)
    off = by["X", "asleep"] + by["X", "run_queue"]
    ns = lambda micros: round(micros * 1000)
    named = {e["tid"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"}
    assert len(by["X", "poll"]) == one("SELECT count(*) FROM polls") and len(off) == one("SELECT count(*) FROM off_cpu")
    assert len(trace["samples"]) == one("SELECT count(*) FROM samples")
    starts, ends = {e["id"] for e in by["s", "wake"]}, [e["id"] for e in by["f", "wake"]]
    arrows = sum(1 for id in ends if id in starts)
    nodes = trace["stackFrames"]

    def frames(node):
        names = []
        while node is not None:
            names.append(nodes[str(node)]["name"])
            node = nodes[str(node)].get("parent")
        return tuple(reversed(names))

    if not LOOSE:
        assert named >= {tid for tid, in rows("SELECT DISTINCT tid FROM threads")}
        same("polls", [(e["tid"], start + ns(e["ts"]), ns(e["dur"]), e["name"]) for e in by["X", "poll"]],
             [(tid, ts, dur, task_name(task, type_id)) for tid, ts, dur, task, type_id in
              rows("SELECT tid, ts, dur, task_id, type_id FROM polls")])
        same("off_cpu", [(e["tid"], start + ns(e["ts"]), ns(e["dur"])) for e in off], rows("SELECT tid, ts, dur FROM off_cpu"))
        same("samples", [(s["tid"], s["weight"], frames(s.get("sf"))) for s in trace["samples"]],
             [(tid, weight, STACK.get(id, ())) for tid, weight, id in rows("SELECT tid, weight, stack_id FROM samples")])
        assert arrows == one("""SELECT count(*) FROM polls p WHERE EXISTS
            (FROM wakes w WHERE w.task_id = p.task_id AND w.ts = p.ts - p.wake_delay)""")
    return {"slices": len(by["X", "poll"]) + len(off), "samples": len(trace["samples"]), "flows": arrows}


def firefox():
    with open(FILE, encoding="utf-8") as file:
        profile = json.load(file)
    meta = profile["meta"]
    assert meta["preprocessedProfileVersion"] == 55 and meta["symbolicated"]
    start = meta["startTime"]
    samples, markers, lines, inlined, weights = collections.Counter(), collections.Counter(), 0, 0, 0
    for thread in profile["threads"]:
        tables = {name: table for name, table in thread.items() if isinstance(table, dict)}
        for name, table in tables.items():
            for column, values in table.items():
                if isinstance(values, list):
                    assert len(values) == table["length"], f"{name}.{column}"
        text, func, frame, stack = (thread[n] for n in ("stringArray", "funcTable", "frameTable", "stackTable"))
        resource = thread["resourceTable"]
        assert all(0 <= i < func["length"] for i in frame["func"])
        assert all(0 <= i < len(meta["categories"]) for i in frame["category"])
        assert all(0 <= i < len(text) for i in func["name"]) and all(-1 <= i < resource["length"] for i in func["resource"])
        assert all(0 <= i < len(profile["libs"]) for i in resource["lib"])
        lines += sum(1 for line in frame["line"] if line)
        inlined += sum(1 for depth in frame["inlineDepth"] if depth)
        names = []
        for prefix, index in zip(stack["prefix"], stack["frame"]):
            assert prefix is None or prefix < len(names)
            names.append((names[prefix] if prefix is not None else ()) + (text[func["name"][frame["func"][index]]],))
        at = 0
        table = thread["samples"]
        for delta, index, weight in zip(table["timeDeltas"], table["stack"], table["weight"]):
            at += delta
            weights += weight
            samples[(int(thread["tid"]), round(weight * 1e6), names[index] if index is not None else ())] += 1
        table = thread["markers"]
        schemas = {s["name"]: s for s in meta["markerSchema"]}
        for data, begin, end, name, phase in zip(table["data"], table["startTime"], table["endTime"], table["name"], table["phase"]):
            assert phase == 1 and begin <= end
            for field in schemas[data["type"]]["fields"]:
                value = data[field["key"]]
                assert field["format"] != "unique-string" or 0 <= value < len(text)
            assert "cause" not in data or data["cause"]["stack"] < len(names)
            markers[(data["type"], int(thread["tid"]), round((end - begin) * 1e6))] += 1
    total = one("SELECT sum(weight)::BIGINT FROM samples")
    if not LOOSE:
        assert abs(weights - total / 1e6) < 1e-3
        same("samples", samples.elements(), [(tid, weight, STACK.get(id, ())) for tid, weight, id in
                                             rows("SELECT tid, weight, stack_id FROM samples")])
        long = [("LongPoll", tid, dur) for tid, dur in rows("SELECT tid, dur FROM polls WHERE dur >= 10000000")]
        asleep = [("Blocked", tid, dur) for tid, dur, task in
                  rows("SELECT tid, dur, task_id FROM off_cpu WHERE dur >= 1000000 AND state <> 'R'") if task_of(task)]
        # A millisecond as a float has no more than so many digits.
        near = lambda all: [(kind, tid, round(dur, -3)) for kind, tid, dur in all]
        same("markers", near(markers.elements()), near(long + asleep))
    return {"samples": sum(samples.values()), "slices": sum(markers.values()), "lines": lines, "inlined": inlined,
            "threads": len(profile["threads"]), "libs": len(profile["libs"])}


def zip_file():
    with zipfile.ZipFile(FILE) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED and entry.date_time == (1980, 1, 1, 0, 0, 0)
        names = archive.namelist()
        assert names[0] == "manifest.json" and len(set(names)) == len(names)
        with tempfile.TemporaryDirectory() as folder:
            archive.extractall(folder)
            counts = {table: one(f"SELECT count(*) FROM {table}") for table in TABLES}
            for name in names:
                sealed = os.path.join(SESSION, name)
                if os.path.exists(sealed):
                    with open(sealed, "rb") as a, open(os.path.join(folder, name), "rb") as b:
                        assert a.read() == b.read(), f"{name} is not as it was"
            open_tables(folder)
            unpacked = {table: one(f"SELECT count(*) FROM {table}") for table in TABLES}
            if not LOOSE:
                assert unpacked == counts, f"{unpacked} unpacked, {counts} in the session"
    return {"entries": len(names), "rows": sum(unpacked.values())}


readers = {"perfetto": perfetto, "pprof": pprof, "folded": folded, "svg": svg, "chrome": chrome, "firefox": firefox, "zip": zip_file}
print(json.dumps(readers[FORMAT]()))
