"""A described plan as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.text import aligned, counted, printable_line, shortened

Described = Mapping[str, Any]


def page(plan: Described) -> str:
    """The text of `steprun show`, section by section."""
    sections = (_head, _tensors, _from_run, _data, _scalars, _objectives, _optimizers, _program, _log, _memory, _lanes)
    blocks = ["\n".join(section(plan)) for section in sections]
    return "\n\n".join(block for block in blocks if block)


def table(rows: Iterable[Iterable[object]], indent: str = "  ") -> list[str]:
    """Rows of cells as lines; each column is as wide as its widest cell."""
    return [line.rstrip() for line in aligned([[str(cell) for cell in row] for row in rows], indent=indent)]


def size(count: int) -> str:
    """A number of bytes with a unit: `2.0 MiB`."""
    from runner.language.inference.inference import readable_bytes

    return readable_bytes(count)


def _head(plan: Described) -> Iterator[str]:
    yield plan["name"] + (f": {plan['description']}" if plan["description"] else "")
    several = f", up to {plan['at_once']} iterations at once" if plan["at_once"] > 1 else ""
    mixed = "" if plan["autocast"] is None else f", autocast {plan['autocast']['dtype']}"
    scaled = ", scaled loss" if mixed and plan["autocast"]["loss_scale"] else ""
    yield f"seed {plan['seed']}, {plan['dtype']}{mixed}{scaled}, {plan['device']}, {plan['engine']} engine{several}"
    if plan["engine_reason"] is not None:
        yield f"engine: auto is {plan['engine']}: {plan['engine_reason']}"


def _tensors(plan: Described) -> Iterator[str]:
    yield "tensors"
    yield from table(
        [
            ("name", "role", "shape", "dtype", "init", "size"),
            *(
                (
                    tensor["name"],
                    tensor["role"] + ("" if tensor["requires_grad"] or tensor["role"] == "constant" else ", frozen"),
                    _shape(tensor["shape"]),
                    tensor["dtype"],
                    _one_line(tensor["init"]),
                    size(tensor["bytes"]),
                )
                for tensor in plan["tensors"]
            ),
        ]
    )


def _from_run(plan: Described) -> Iterator[str]:
    start = plan["from_run"]
    if start is not None:
        yield f"from_run: {start['file']}"
        yield f"  gives {', '.join(start['taken'])}" + (
            ", with the state of the optimizers" if start["optimizer"] else ""
        )
        for key, text in (("own", "own init: {}"), ("unused", "not used: {}")):
            if start[key]:
                yield "  " + shortened(text.format(", ".join(start[key])), 100)


def _data(plan: Described) -> Iterator[str]:
    if not plan["data"]:
        return
    yield "data"
    for source in plan["data"]:
        of = "" if source["samples"] == source["rows"] else f" of {source['rows']:,} rows"
        batches = f"{source['batches']:,} batch{'' if source['batches'] == 1 else 'es'} of {source['batch_size']:,}"
        parts = ", read in parts" if source["streams"] else ""
        samples = counted(source["samples"], "sample")
        yield f"  {source['name']}: {samples}{of}, {batches}, {_ORDERS[source['order']]}{parts}"
        yield from table(map(_values, source["columns"]), indent="    ")
        for column in source["columns"]:
            if column["taken"]:
                yield f"    {column['name']} takes {shortened(', '.join(column['taken']), 300)}"
            for name, classes in column["classes"].items():
                listed = printable_line(", ".join(map(str, classes)))  # a class may have a line break
                yield f"    {name} has the classes {shortened(listed, 300)}"
            for name, fill in column["fill"].items():
                yield f"    missing numbers of {name} become {fill:.6g}"
        classes = source["classes"][:MOST_CLASSES]
        if classes:
            counts = ", ".join(f"{each['class']}: {each['selected']:,} of {each['rows']:,}" for each in classes)
            more = ", …" if len(source["classes"]) > MOST_CLASSES else ""
            yield f"    classes {printable_line(counts)}{more}"


_ORDERS = {
    "file": "in file order",
    "shuffled": "shuffled",
    "shuffled row groups": "shuffled by row groups, and within each",
    "computed": "shuffled in a computed order",
}

MOST_CLASSES = 12
"""How many classes of a source the text lists."""


def _values(column: Described) -> tuple[str, ...]:
    if "missing" not in column:
        found = ""
    elif column["min"] is None:
        found = "no values"
    else:
        found = f"from {column['min']:.6g} to {column['max']:.6g}"
    missing = f"{column['missing']:,} missing" if column.get("missing") else ""
    return column["name"], column["file"], _shape(column["shape"]), column["dtype"], found, missing


def _scalars(plan: Described) -> Iterator[str]:
    if plan["scalars"]:
        yield "scalar constants"
        yield from table((name, "=", repr(value)) for name, value in plan["scalars"].items())


def _objectives(plan: Described) -> Iterator[str]:
    for number, (name, objective) in enumerate(plan["objectives"].items()):
        if number:
            yield ""
        reached = ", ".join(objective["reached_by"])
        yield f"objective {name}: " + (f"reached by {reached}" if reached else "no trainable parameter reaches it")
        rows = [
            (
                node["value"] or node["node"],
                "=",
                f"{node['operation']}({', '.join(node['arguments'])})",
                _shape(node["shape"]),
                node["dtype"],
            )
            for node in objective["graph"]
        ]
        if rows:
            yield from table(rows)


def _optimizers(plan: Described) -> Iterator[str]:
    if not plan["optimizers"]:
        return
    yield "optimizers"
    for optimizer in plan["optimizers"]:
        name = "" if optimizer["name"] == "optimizer" else f"{optimizer['name']}: "
        if optimizer["update"] is None:
            yield f"  {name}{optimizer['kind']}({_options(optimizer['options'])})"
        else:
            yield f"  {name}{optimizer['kind']}"
            yield from (f"    {line}" for line in optimizer["update"])
        for group in optimizer["groups"]:
            own = f", with {_options(group['options'])}" if group["options"] else ""
            yield f"    holds {', '.join(group['parameters'])}{own}"
        if optimizer["state"]:
            yield f"    keeps {', '.join(optimizer['state'])}"


def _program(plan: Described) -> Iterator[str]:
    yield "program"
    yield from _steps(plan["program"], "  ")


def _steps(steps: list[Described], indent: str) -> Iterator[str]:
    for number, step in enumerate(steps, 1):
        yield f"{indent}{number}. {_step(step)}"
        if "steps" in step:
            yield from _steps(step["steps"], indent + "   ")


def _step(step: Described) -> str:
    words = [step["step"]]
    if "times" in step:
        words.append(f"{step['times']:,} times")
    for key, text in (
        ("objective", "{}"),
        ("data", "over {}"),
        ("optimizers", "with {}"),
        ("targets", "{}"),
        ("tag", "{}"),
        ("rate", "of {}"),
        ("on", "on {}"),
        ("expectations", "{}"),
    ):
        value = step.get(key)
        if value and value != ["optimizer"]:
            words.append(text.format(value if isinstance(value, str) else ", ".join(value)))
    if "evaluations" in step:
        words.append(f"of {step['evaluations']} evaluations")
    if "every" in step:
        words.append(f"every {step['every']} iterations")
    if "when" in step:
        words.append(f"when {step['when']}")
    return " ".join(words)


def _log(plan: Described) -> Iterator[str]:
    log, counted = plan["log"], plan["log_bytes"]
    every = "" if log["every"] == 1 else f", every {log['every']} iterations"
    rows = f"{counted['rows']:,} row{'' if counted['rows'] == 1 else 's'}"
    yield f"log: {rows} of {size(counted['row'])}{every}: {size(counted['total'])} before compression"
    yield from (table(map(_logged, log["columns"])) if log["columns"] else ())


def _logged(column: Described) -> tuple[str, ...]:
    kept, slices = column["kept"] if column["kept"] != "full" else "", column["slices"]
    if slices:
        names = slices[0] if len(slices) == 1 else f"{slices[0]} … {slices[-1]}"
        kept += f"{', and' if column['whole'] else ''} of {counted(len(slices), 'slice')}: {names}"
    return column["name"], column["role"], _shape(column["shape"]), column["dtype"], kept


def _memory(plan: Described) -> Iterator[str]:
    memory = plan["memory_bytes"]
    names = ("tensors", "gradients", "state", "values", "data", "rows")
    parts = ", ".join(f"{name} {size(memory[name])}" for name in names if memory[name])
    process, run = size(memory["process"]), size(memory["total"] + memory["rows"])
    yield f"memory: about {size(memory['peak'])}: {process} of Python, torch and pyarrow, {run} of the run ({parts})"


def _lanes(plan: Described) -> Iterator[str]:
    lanes = plan["lanes"]
    if lanes is None:
        return
    if lanes["obstacle"] is not None:
        yield f"lanes: none ({lanes['obstacle']}); the points of the sweep run in processes"
    else:
        span = f"{lanes['fewest']} to {counted(lanes['at_once'], 'lane')}"
        yield f"lanes: about {size(lanes['bytes'])} a point of the sweep; a chunk has {span}"


def _shape(shape: list[int] | None) -> str:
    return "?" if shape is None else json.dumps(shape)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _one_line(text: str) -> str:
    return shortened(" ".join(text.split()), 40)
