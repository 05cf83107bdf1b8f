"""The plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsynth.core.durations import duration

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
    if plan.get("memorised_from"):
        parts.append(f"Copies\n  {plan['memorised_from']}")
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
    flops, steps = plan["flops"], plan["generation"]["steps"]
    step = f"{_flops(flops['guided_step'])} per guided step"
    count = f"{steps} steps"
    if plan["evaluations"]:
        step = f"{_flops(flops['evaluation'])} per evaluation"
        count = f"{steps} evaluation{'s' * (steps > 1)}"
    again = flops["recomputed_image"]
    more = f", and {_flops(again)} again for checkpointing" if again else ""
    return (
        "Arithmetic\n"
        f"  training    {_flops(flops['training_image'])} per image{more};\n"
        f"              {_flops(flops['training_step'])} per step, {_flops(flops['training'])} in "
        f"{plan['steps'] - plan['distill_steps']:,} steps{_distill(plan)}\n"
        f"  generation  {_flops(flops['condition'])} per mask, {step}; "
        f"{_flops(flops['generated_image'])} per image of {count}" + _autoencoder(plan)
    )


def _distill(plan: Mapping[str, Any]) -> str:
    """Return a line on the phase distill; empty without it."""
    steps = plan["distill_steps"]
    if not steps:
        return ""
    return (
        f";\n              not counted, nor in the memory below: {steps:,} steps of the phase "
        "distill"
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
    time, lines = plan["time"], []
    if time["training_s"] is not None:
        mfu = "" if time["mfu"] is None else f", MFU {time['mfu']:.0%}"
        speed = f"{time['images_per_second']:.1f} images/s{mfu}"
        lines.append(f"  training    {duration(time['training_s'])} ({speed})")
        if time["latents_s"]:
            lines.append(f"              of it, once, latents: {duration(time['latents_s'])}")
    if time["generation_s"] is not None:
        images = plan["generation"]["images"]
        lines.append(f"  generation  {duration(time['generation_s'])} for {images:,} images")
    if lines:
        left_out = ["reading images", *time["without"]]
        lines.append(f"  measured on {time['device']}; not included: {', '.join(left_out)}")
    reasons = time["why_not"]
    if len(set(reasons.values())) == 1 and len(reasons) == 2:
        reasons = {"hours": reasons["training"]}
    lines += [f"  {part} not known: {reason}" for part, reason in reasons.items()]
    if reasons:
        lines.append("  run `semsynth plan` on the machine that will do it: it measures real steps")
    return "\n".join(["Time", *lines])


def _disk(plan: Mapping[str, Any]) -> str:
    disk = plan["disk"]
    return (
        f"Disk  {_gb(disk['total'])} GB at most: {_gb(disk['checkpoint'])} a checkpoint, "
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
