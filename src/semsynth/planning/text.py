"""The plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PARTS = {
    "weights": "weights (fp32)",
    "optimizer": "optimizer (AdamW, fp32)",
    "ema": "EMA (fp32)",
    "autoencoder": "autoencoder (fp32)",
    "ddp_buckets": "DDP buckets",
    "gradients": "gradients, at the peak",
    "activations": "activations, at the peak",
    "overhead": "overhead (assumed)",
}


def text(plan: Mapping[str, Any]) -> str:
    """Return the plan in some forty lines."""
    parts = [_head(plan), _arithmetic(plan), _memory(plan), _time(plan), _disk(plan)]
    advice = plan["advice"] or ["nothing"]
    parts.append("What to change\n" + "\n".join(f"  {line}" for line in advice))
    return "\n\n".join(parts)


def _head(plan: Mapping[str, Any]) -> str:
    trained = "x".join(map(str, reversed(plan["trained_size"])))
    cut = f" on {plan['gpus'] or 1} x {plan['images_at_a_time']} x {plan['accumulation']}"
    gpus = plan["gpus"]
    where = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "this CPU"
    return (
        f"{plan['recipe']}: {plan['width']}x{plan['height']}, trained on {trained}, "
        f"{plan['classes']} classes, {plan['precision'] if plan['precision'] != 'no' else 'fp32'}\n"
        f"{plan['parameters']:,} parameters; batch {plan['batch_size']}{cut} "
        f"(processes x images x accumulation), {where}"
    )


def _arithmetic(plan: Mapping[str, Any]) -> str:
    flops, painting = plan["flops"], plan["painting"]
    again = flops["recomputed_image"]
    more = f", and {_flops(again)} again for checkpointing" if again else ""
    return (
        "Arithmetic\n"
        f"  training  {_flops(flops['training_image'])} an image{more}; "
        f"{_flops(flops['training_step'])} a step\n"
        f"  painting  {_flops(flops['condition'])} a mask, {_flops(flops['guided_step'])} a guided "
        f"step; {_flops(flops['painted_image'])} an image of {painting['steps']} steps"
        + _autoencoder(plan)
    )


def _autoencoder(plan: Mapping[str, Any]) -> str:
    """Return a line on what the autoencoder adds; empty for the other codecs."""
    found, flops, latents = plan["autoencoder"], plan["flops"], plan["latents"]
    if found is None:
        return ""
    if not found["known"]:
        return (
            f"\n  without the autoencoder: the configuration of {found['source']} is not on this "
            "machine;\n  fetch it (hf download), or give its folder as model.vae.source"
        )
    parts = []
    if flops["encoded_image"]:
        parts.append(f"{_flops(flops['encoded_image'])} to encode an image, in every step")
    if latents["encoded"]:
        source = "assumed; --data PREPARED counts them" if latents["assumed"] else "--data"
        parts.append(
            f"{_flops(flops['encoded_once'])} once for latents of {latents['encoded']:,} "
            f"({latents['images']:,} images: {source})"
        )
    parts.append(f"{_flops(flops['decoded_image'])} to decode one")
    return f"\n  autoencoder, fp32  {'; '.join(parts)}"


def _memory(plan: Mapping[str, Any]) -> str:
    memory = plan["memory"]
    columns = (memory["plain"], memory["checkpointing"])
    recipe = int(plan["gradient_checkpointing"])
    heads = [
        f"{name}{'*' if index == recipe else ''}"
        for index, name in enumerate(("plain", "checkpointing"))
    ]
    what = "Memory of a GPU, GB" if plan["gpus"] else "Memory of the process, GB"
    lines = [_row(what, *heads) + "     (* the recipe)"]
    for key, name in _PARTS.items():
        if any(column[key] for column in columns):
            lines.append(_row(f"  {name}", *(_gb(column[key]) for column in columns)))
    lines.append(_row("  the peak is in", *(column["peak"] for column in columns)))
    totals = _row("  total", *(_gb(column["total"]) for column in columns))
    lines.append(f"{totals}     of {_gb(memory['limit'])}")
    lines.append(_row("", *("fits" if column["fits"] else "TOO MUCH" for column in columns)))
    most = (str(column["largest_batch"]) for column in columns)
    lines.append(_row("  most images at a time", *most))
    return "\n".join(lines)


def _row(name: str, plain: str, checkpointing: str) -> str:
    return f"{name:<28}{plain:>10}{checkpointing:>16}"


def _time(plan: Mapping[str, Any]) -> str:
    painted = f"{plan['painting']['images']} images"
    head = f"  {'':<24}{'images/s':>10}{'MFU':>7}{'training':>12}{painted:>17}"
    lines, notes, filling = [], [], []
    for row in plan["time"]:
        if row["source"] == "not measured":
            notes.append(f"  not measured: {row['reason']}")
            continue
        mfu = f"{row['mfu']:.0%}" if row["mfu"] else "-"
        small = "memory_gb" in row and plan["memory"]["used"]["total"] > row["memory_gb"] * 1e9
        lines.append(
            f"  {row['device']:<24}{row['images_per_second']:>10.1f}{mfu:>7}"
            f"{_time_words(row['training_s']):>12}{_time_words(row['painting_s']):>17}"
            + (f"  too small ({row['memory_gb']} GB)" if small else "")
            + ("  without the autoencoder" if row["without_autoencoder"] else "")
        )
        notes.append(f"  {_source(row, plan)}")
        if row["latents_s"]:
            filling.append(f"{_time_words(row['latents_s'])} on {row['device']}")
    notes = list(dict.fromkeys(notes))
    if filling:
        notes.append(f"  of training, once, the cache of latents: {', '.join(filling)}")
    return "\n".join(["Time", head, *lines, *notes] if lines else ["Time", *notes])


def _source(row: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    scaling = plan["assumed"]["scaling"]
    several = f", times {scaling:g} for several GPUs (assumed)" if plan["gpus"] > 1 else ""
    if row["source"] == "estimate":
        share = plan["assumed"]["utilisation"]
        return (
            f"ESTIMATE, not measured: {share:.0%} of the peak of the data sheet (--utilisation), "
            f"recomputation included{several}"
        )
    timed = row["timed"]
    what = f"steps of {timed['images']} at {timed['width']}x{timed['height']}"
    reading = "; reading of images not included"
    if row["source"] == "measured":
        training = f"measured: real {what}{several}{reading}"
    else:
        share = f"{timed['share']:.1%} of the recipe's"
        training = f"EXTRAPOLATED by FLOPs from {what}, {share}{several}{reading}"
    painted = row["painting_timed"]
    what = f"an image of {painted['width']}x{painted['height']}"
    if row["painting_source"] == "measured":
        return f"{training}\n  painting measured: {what}"
    share = f"{painted['share']:.1%} of the recipe's"
    return f"{training}\n  painting EXTRAPOLATED by FLOPs from {what}, {share}"


def _disk(plan: Mapping[str, Any]) -> str:
    disk = plan["disk"]
    return (
        f"Disk  {_gb(disk['total'])} GB at the most: {_gb(disk['checkpoint'])} a checkpoint, "
        f"{_gb(disk['final_model'])} the final model"
        + (f", {_gb(disk['latents'])} the latents" if disk["latents"] else "")
    )


def _gb(n_bytes: float) -> str:
    gigabytes = n_bytes / 1e9
    return f"{gigabytes:.1f}" if gigabytes >= 10 else f"{gigabytes:.2f}"


def _flops(count: float) -> str:
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {unit}FLOP"
    return f"{count / 1e6:.3g} MFLOP"


def _time_words(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    hours = seconds / 3600
    if hours < 1:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"
