"""What `--help` shows besides flags: groups of flags, examples, the recipes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from semsynth.cli.experiment_help import EXPERIMENTS, Help

WORKFLOW = {
    "everything on real images, in minutes": "semsynth demo",
    "your images and masks": "semsynth prepare my_images --output prepared",
    "a generator of them": "semsynth train --data prepared --recipe camvid_480 --output run",
    "images for its masks": "semsynth generate --model run --data prepared --output samples",
}

HELP: dict[str, Help] = {
    **EXPERIMENTS,
    "prepare": Help(
        {
            "your folder, zip or export of a labelling tool": (
                "semsynth prepare my_images --output prepared"
            ),
            "masks by colour, a fifth of the images held out": (
                "semsynth prepare my_images --masks-as colors --val-share 0.2"
            ),
            "built-in streets, nothing is downloaded": (
                "semsynth prepare --source streets --height 64 --width 64 --output streets"
            ),
        },
        {
            "data": (
                "path source output data repo images masks image_suffix mask_suffix labels licence "
                "kind classes"
            ),
            "reading": "masks_as exif window channels resize_masks instances max_pixels",
            "size": "height width resize large tile overlap image_format",
            "split": "val_share group_by holdout near_duplicates train_count val_count seed",
        },
    ),
    "plan": Help(
        {
            "on this machine": "semsynth plan --recipe camvid_480 --data prepared",
            "on eight GPUs of 80 GB that are elsewhere": (
                "semsynth plan --recipe sidewalk_1024 --gpus 8 --memory 80"
            ),
        },
        {
            "training": "recipe data set classes",
            "machine": "gpus memory device measure",
            "generation": "images steps",
        },
    ),
    "train": Help(
        {
            "built-in streets on a CPU": (
                "semsynth train --recipe streets_demo --data streets --output run"
            ),
            "fewer steps, another learning rate and batch": (
                "semsynth train --recipe camvid_480 --data prepared --set train.steps=20000 "
                "--set lr=5e-5 --set bs=4"
            ),
            "from another model's weights": (
                "semsynth train --recipe camvid_480 --data prepared --from other/run --output run"
            ),
        },
        {
            "training": "recipe set data output resume data_changed mask_dropout track",
            "start": "from_checkpoint fork label_map",
        },
    ),
    "submit": Help(
        {
            "look at the batch script first": (
                "semsynth submit --recipe sidewalk_1024 --data prepared --nodes 2 --dry-run"
            ),
            "a day on four GPUs": (
                "semsynth submit --recipe camvid_480 --data prepared --gpus 4 --time 24:00:00"
            ),
        },
        {
            "training": "recipe set data output data_changed mask_dropout track",
            "start": "from_checkpoint fork label_map",
            "cluster": "nodes gpus cpus memory time partition account mail container dry_run",
        },
    ),
    "status": Help({"a training, running or not": "semsynth status run"}),
    "models": Help(
        {
            "all of them": "semsynth models",
            "labels, training, scores, limits and licence of one": "semsynth models aerial",
        }
    ),
    "app": Help(
        {
            "with the models of the package": "semsynth app",
            "your model, its data to start from, a segmenter to evaluate images with": (
                "semsynth app --model run --data prepared --segmenter segmenter"
            ),
            "on a node of a cluster, through a forwarded port": (
                "semsynth app --model run --no-browser --port 7860"
            ),
        },
        {
            "what is open": "model data segmenter save_to device",
            "where": "host port root_path browser",
            "who may come in": "token allow_host",
        },
    ),
    "generate": Help(
        {
            "with a model of the package, without training": (
                "semsynth generate --model aerial --data prepared --output samples"
            ),
            "four images for each held-out mask": (
                "semsynth generate --model run --data prepared --output samples"
            ),
            "a hundred training masks, for augmentation": (
                "semsynth generate --model run --data prepared --split train --limit 100 "
                "--output synthetic"
            ),
            "data whose labels have other names than the model's": (
                "semsynth generate --model aerial --data prepared --label-map names.yaml "
                "--output samples"
            ),
            "masks that were drawn or edited, without images": (
                "semsynth generate --model run --masks my_masks --output drawn"
            ),
            "from the real images, half of whose noise levels are passed": (
                "semsynth generate --model run --data prepared --split train --from-image "
                "--strength 0.5 --output varied"
            ),
            "edited masks and images, of which only the edited regions change": (
                "semsynth generate --model run --data edited --split train --from-image "
                "--strength 0.5 --keep outside --output harmonised"
            ),
        },
        {
            "data": (
                "model data masks masks_as label_map output overwrite split per_mask limit "
                "native_size small_masks"
            ),
            "from real images": "from_image strength keep",
            "sampling": "sampler steps guidance_scale guidance_interval seed",
            "computing": "device precision compile cache batch_size shard reference",
        },
    ),
    "edit": Help(
        {
            "look at some first": "semsynth edit --data prepared --output edited --preview",
            "rare objects of other images, where a segmenter is weak": (
                "semsynth edit --data prepared --kinds transplant --hard segmenter/segmenter.json "
                "--count 400 --output edited"
            ),
            "then make their images look right": (
                "semsynth generate --model run --data edited --split train --from-image "
                "--strength 0.5 --keep outside --output harmonised"
            ),
        },
        {
            "data": "data output overwrite split",
            "edits": "count kinds objects classes rare_weight hard upright margin preview seed",
            "foreign masks": "donors donor_split donor_kind to_kind label_map",
            "computing": "workers",
        },
    ),
    "evaluate": Help(
        {
            "score samples of semsynth generate": (
                "semsynth evaluate --generated samples --real prepared --segmenter segmenter "
                "--output report"
            ),
            "score the images of any system": (
                "semsynth evaluate --generated theirs --real photos --masks masks "
                "--labels labels.yaml --train training_photos --output report"
            ),
            "which guidance, and how many steps": (
                "semsynth evaluate --model run --data prepared --segmenter segmenter "
                "--sweep guidance=1,1.5,2,3 --sweep steps=10,20 --output sweep"
            ),
            "what a codec loses, before any training": (
                "semsynth evaluate --codec-only --data prepared --segmenter segmenter "
                "--output report"
            ),
        },
        {
            "data": (
                "generated real masks train labels masks_as match max samples data split "
                "train_split"
            ),
            "evaluator": (
                "segmenter label_map allow_seen train_segmenter train_segmenter_steps "
                "train_segmenter_init"
            ),
            "metrics": "protocol evaluator_size features cmmd resize lpips seed",
            "weights": "weights inception lpips_backbone lpips_heads download",
            "report": "output overwrite augmentation run rows",
            "sweep": "sweep model per_mask",
            "codec": "codec_only codec vae",
            "computing": "device batch_size shard",
        },
    ),
    "evaluate stats": Help(
        {
            "the real images of a test set, once": ("semsynth evaluate stats real -o real.npz"),
            "and any folder against them": (
                "semsynth evaluate --generated images --real real.npz --output report"
            ),
        },
        {
            "data": "folder split max output overwrite",
            "features": "features resize inception weights download",
            "computing": "device batch_size",
        },
    ),
    "evaluate compare": Help(
        {
            "two generators on the same masks": (
                "semsynth evaluate compare report_a report_b --output comparison"
            ),
            "several seeds of one generator": (
                "semsynth evaluate compare seed_0 seed_1 seed_2 --output seeds"
            ),
        },
        {"reports": "reports output overwrite anyway", "intervals": "seed"},
    ),
    "segment train": Help(
        {
            "from scratch": "semsynth segment train --data prepared --output segmenter",
            "with few images: ImageNet's encoder, strong augmentation": (
                "semsynth segment train --data prepared --arch lite2 --augment strong --ema 0.99 "
                "--output segmenter"
            ),
            "any model of the Hub": (
                "semsynth segment train --data prepared --init-from nvidia/mit-b0 "
                "--output segmenter"
            ),
            "with samples at first, with real images alone at the end": (
                "semsynth segment train --data prepared --arch lite2 --augment strong "
                "--extra samples --mix-share 0.5 --mix-share-end 0 --output segmenter"
            ),
            "with real images that have no masks": (
                "semsynth segment train --data prepared --unlabelled photos --output segmenter"
            ),
        },
        {
            "data": "data output overwrite split val_split",
            "extra images": "extra extra_split fresh mix_share mix_share_end extra_weight",
            "images without masks": (
                "unlabelled unlabelled_split unlabelled_batch unlabelled_weight confidence"
            ),
            "network": "arch init_from enlarge width",
            "training": (
                "steps batch_size lr pretrained_lr_share weight_decay class_balance ema seed"
            ),
            "augmentation": (
                "augment scale flip rotate color stain blur balanced_crops classmix copy_paste"
            ),
            "computing": "precision device workers",
        },
    ),
    "segment score": Help(
        {
            "on held-out real images": (
                "semsynth segment score --segmenter segmenter --data prepared"
            ),
        }
    ),
    "filter": Help(
        {
            "labels that a segmenter of the real images believes": (
                "semsynth filter --samples synthetic --segmenter segmenter --real prepared "
                "--output filtered --preview"
            ),
            "where it is sure of another class, that class": (
                "semsynth filter --samples synthetic --segmenter segmenter --real prepared "
                "--rule relabel --output relabelled"
            ),
        },
        {
            "data": "samples segmenter real output overwrite split mean_split val_split preview",
            "pixels": "rule tolerance relabel_above keep_at_least border",
            "images": "drop_far drop_copies",
            "computing": "device shard",
        },
    ),
    "augment": Help(
        {
            "a hundred real images, with and without synthetic ones": (
                "semsynth augment --data prepared --samples synthetic --output augmentation"
            ),
        },
        {
            "data": "data samples output overwrite split samples_split val_split real_images",
            "experiment": "mix_share trials keep_share ignore_below ceiling seed",
            "training": "steps batch_size width device",
        },
    ),
    "import": Help(
        {
            "the authors' ADE20K weights": (
                "semsynth import ade20k.pt --dataset ade20k --output ade20k"
            ),
        },
    ),
    "export": Help(
        {
            "real and generated images for a trainer": (
                "semsynth export prepared --with samples --to mmseg --output mmseg"
            ),
            "a model in a quarter of the bytes": (
                "semsynth export run --to pth --weights int8 --output model.pth"
            ),
            "a model as a folder for Diffusers": (
                "semsynth export run --to diffusers --output model"
            ),
            "with scores and images on its card": (
                "semsynth export run --to diffusers --report report --samples samples "
                "--data prepared --output model"
            ),
        },
        {
            "data": "with_ synthetic_split push_to_hub private",
            "model file": "weights",
            "model card": "report samples data",
        },
    ),
    "demo": Help(
        {
            "on real images that come with the package, by its models": "semsynth demo",
            "on built-in streets, by a model trained from scratch": (
                "semsynth demo --source streets --output streets"
            ),
        }
    ),
    "doctor": Help({"this machine": "semsynth doctor"}),
    "recipes": Help(
        {
            "all of them": "semsynth recipes",
            "the keys of one, with values and meanings": "semsynth recipes camvid_480",
        }
    ),
    "completion": Help(
        {
            "bash; then add `source ~/.semsynth_completion` to ~/.bashrc": (
                "semsynth completion bash > ~/.semsynth_completion"
            ),
            "zsh; ~/.zfunc is one of $fpath": "semsynth completion zsh > ~/.zfunc/_semsynth",
            "fish": "semsynth completion fish > ~/.config/fish/completions/semsynth.fish",
        }
    ),
}


def groups(verb: str) -> Mapping[str, str]:
    """Return the titles of a verb's groups of flags, each with the names of its fields."""
    return HELP[verb].groups if verb in HELP else {}


def examples(verb: str) -> str:
    """Return the verbs below a verb, its examples, and the recipes where it takes one."""
    from semsynth.cli import VERBS, lines

    known = HELP.get(verb, Help())
    text = listed(known.examples)
    if verb in VERBS and VERBS[verb].subverbs:
        text = f"verbs below it:\n{lines(VERBS[verb].subverbs)}\n\n{text}"
    if any("recipe" in names.split() for names in known.groups.values()):
        from semsynth.training.recipe import recipe_names

        names = textwrap.fill(
            ", ".join(recipe_names()),
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        text += f"\n\nrecipes (`semsynth recipes NAME` shows the keys of one):\n{names}"
    return text


def listed(known: Mapping[str, str]) -> str:
    """Return commands below what they are for, as `--help` shows them."""
    lines = [f"  # {purpose}\n  {command}" for purpose, command in known.items()]
    return "\n".join(["examples:", *lines]) if lines else ""
