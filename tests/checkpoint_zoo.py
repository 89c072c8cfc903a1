"""Builds a folder of checkpoints as people keep them, with random weights, and texts and images to run them on.

    python -m tests.checkpoint_zoo FOLDER [--all]

writes ``zoo/<model>/``, ``texts.jsonl`` and ``images/<label>/<number>.png``; nothing is downloaded. Without ``--all``
the models of `SMALL`. A new model is a row of `MODELS`: what makes it, and what it is made from.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TOPICS: Mapping[str, str] = {
    "animals": "the quick brown fox jumps over a lazy dog while seven small birds watch from one old tree",
    "cooking": "stir warm butter with sugar and flour then bake for an hour until golden and serve with cream",
    "weather": "cold rain and strong wind from north today but sunny and dry with light clouds by friday morning",
    "travel": "our train leaves early so take your bag and ticket we cross two rivers before night in paris",
}
WORDS = sorted({word for text in TOPICS.values() for word in text.split()})
_SIZES: Mapping[str, int] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_IMAGE_SIDE = 32
# Special tokens, by the names that tokenizers have for them.
_ENDS: Mapping[str, str] = {"bos_token": "<|start|>", "eos_token": "<|end|>"}
_OF_BERT: Mapping[str, str] = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_OF_T5: Mapping[str, str] = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
# Large enough that layers differ: with the usual .02 random layers hardly change what they get.
_SPREAD = 0.15


def promised_weights(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the table of words and a tensor for each layer that a configuration promises, and nothing else."""
    parts = {f"{one}_model.": config[f"{one}_config"] for one in ("text", "vision") if f"{one}_config" in config}
    if config.get("is_encoder_decoder"):
        parts = {"encoder.": config, "decoder.": config}
    tensors = {}
    for prefix, part in (parts or {"": config}).items():
        width = next((part[key] for key in ("hidden_size", "n_embd", "d_model") if key in part), 8)
        n_layers = next((part[key] for key in ("num_hidden_layers", "n_layer", "num_layers") if key in part), 0)
        tensors |= {f"{prefix}layers.{layer}.weight": np.zeros((4, width), np.float16) for layer in range(n_layers)}
        for stage, (depth, size) in enumerate(zip(part.get("depths", ()), part.get("hidden_sizes", ()), strict=True)):
            names = (f"{prefix}stages.{stage}.layers.{block}.weight" for block in range(depth))
            tensors |= {name: np.zeros(size, np.float32) for name in names}
        if "vocab_size" in part:
            tensors[f"{prefix}embed_tokens.weight"] = np.zeros((part["vocab_size"], width), np.float32)
    return tensors or {"weight": np.zeros((8, 8), np.float32)}


def write_texts(path: Path, n_texts: int = 240, seed: int = 0) -> None:
    """Write sentences of 1 to 40 words as JSON lines with ``id``, ``text`` and ``label``."""
    generator = np.random.default_rng(seed)
    lines = []
    for number in range(n_texts):
        topic = sorted(TOPICS)[number % len(TOPICS)]
        words = TOPICS[topic].split() * 2 + WORDS[:10]
        length = 1 + int(generator.integers(40))
        text = " ".join(generator.choice(words, size=length))
        lines.append(json.dumps({"id": f"text-{number:03}", "text": text, "label": topic}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_images(folder: Path, n_images: int = 96, seed: int = 0) -> None:
    """Write square color images: stripes, checks, dots and slopes, a folder a label."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    across, down = np.meshgrid(*[np.linspace(0, 1, _IMAGE_SIDE)] * 2)
    for number in range(n_images):
        label = ("checks", "dots", "slopes", "stripes")[number % 4]
        size, turn = 2 + 6 * generator.random(), generator.random(2)
        values = {
            "stripes": np.sin(np.pi * size * (across * turn[0] + down * turn[1]) * 4),
            "checks": np.sign(np.sin(2 * np.pi * size * across) * np.sin(2 * np.pi * size * down)),
            "dots": 1 - size * np.hypot(across - turn[0], down - turn[1]),
            "slopes": 2 * (across * turn[0] + down * turn[1]) - 1,
        }[label]
        color = generator.random(3)
        pixels = np.clip(127 + 127 * values[..., None] * color + 10 * generator.standard_normal(3), 0, 255)
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number:03}.png")


def _word_pieces() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*_OF_BERT.values(), *"abcdefghijklmnopqrstuvwxyz"]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + [word for word in WORDS if len(word) > 1]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token=_OF_BERT["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **_OF_BERT)


def _byte_pairs(**special: str) -> Any:
    """Return a byte-level tokenizer; ``special`` are its special tokens, of which it has no padding by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=sorted(set(special.values())), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TOPICS.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)


def _save(folder: Path, model: Any, tokenizer: Any = None, **settings: Any) -> None:
    model.eval().save_pretrained(folder, **settings)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _encoder(folder: Path, kind: str, seed: int, **sizes: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    tokenizer = _word_pieces()
    settings = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": _SPREAD, **sizes}
    _save(folder, AutoModel.from_config(AutoConfig.for_model(kind, **settings)), tokenizer)


def _causal(folder: Path, kind: str, seed: int, **sizes: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    tokenizer = _byte_pairs(**_ENDS)
    settings = {"vocab_size": len(tokenizer), "initializer_range": _SPREAD, **sizes}
    settings |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    _save(folder, AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)), tokenizer)


def _t5(folder: Path) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(8)
    tokenizer = _byte_pairs(**_OF_T5)
    settings = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4}
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    _save(folder, T5ForConditionalGeneration(T5Config(num_decoder_layers=2, **settings, **ends)), tokenizer)


def _processor(kind: str) -> dict[str, Any]:
    side = {"height": _IMAGE_SIDE, "width": _IMAGE_SIDE}
    steps = {"do_resize": True, "size": side, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
    moments = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {"image_processor_type": kind, "do_convert_rgb": True, **steps, **moments}


def _write_json(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _vit(folder: Path, seed: int = 9) -> None:
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(seed)
    _save(folder, ViTModel(ViTConfig(**_SIZES, image_size=_IMAGE_SIDE, patch_size=8, initializer_range=_SPREAD)))
    _write_json(folder, "preprocessor_config.json", _processor("ViTImageProcessor"))


def _clip(folder: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(10)
    tokenizer = _byte_pairs(**_ENDS, pad_token=_ENDS["eos_token"])
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**_SIZES, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    vision = {**_SIZES, "image_size": _IMAGE_SIDE, "patch_size": 8}
    _save(folder, CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)), tokenizer)
    _write_json(folder, "preprocessor_config.json", {**_processor("CLIPImageProcessor"), "do_center_crop": False})


def _resnet(folder: Path) -> None:
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(11)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32], depths=[1, 1, 1], layer_type="basic")
    _save(folder, ResNetModel(config))
    _write_json(folder, "preprocessor_config.json", _processor("ViTImageProcessor"))


def _whisper(folder: Path) -> None:
    import torch
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(12)
    tokenizer = _byte_pairs(**_ENDS, **{"pad_token": "<|pad|>"})
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends |= {"pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": tokenizer.bos_token_id}
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 8, "max_source_positions": 50}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    config = WhisperConfig(
        vocab_size=len(tokenizer), max_target_positions=64, begin_suppress_tokens=None, **sizes, **ends
    )
    _save(folder, WhisperModel(config), tokenizer)
    sound = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 8, "sampling_rate": 16000}
    _write_json(folder, "preprocessor_config.json", sound)


def _timm(folder: Path, architecture: str, seed: int, **arguments: Any) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model = timm.create_model(architecture, num_classes=0, **arguments).eval()
    for tensor in model.parameters():
        if tensor.ndim > 1:
            torch.nn.init.normal_(tensor, std=tensor[0].numel() ** -0.5)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    prepared = {"input_size": [3, _IMAGE_SIDE, _IMAGE_SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    config = {"architecture": architecture, "num_classes": 0, "num_features": model.num_features}
    prepared |= {"interpolation": "bilinear", "fixed_input_size": "vit" in architecture, "num_classes": 0}
    _write_json(folder, "config.json", {**config, "model_args": arguments, "pretrained_cfg": prepared})


def _copied(folder: Path, origin: Path) -> None:
    shutil.copytree(origin, folder, ignore=shutil.ignore_patterns("README.md"))


def _changed(folder: Path, origin: Path, change: Callable[[Any], Any]) -> None:
    """Write a copy of ``origin`` whose weights ``change`` has gone over, tensor by tensor."""
    from safetensors.torch import load_file, save_file

    _copied(folder, origin)
    tensors = load_file(origin / "model.safetensors")
    changed = {name: change(tensor).contiguous() for name, tensor in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def _fine_tuned(folder: Path, origin: Path, seed: int = 20) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    noise: Callable[[Any], Any] = lambda tensor: torch.randn(tensor.shape, generator=generator)  # noqa: E731
    _changed(folder, origin, lambda tensor: tensor + 0.05 * tensor.std(correction=0) * noise(tensor))


def _merged(folder: Path, origin: Path) -> None:
    """Write the mean of a model and of its fine-tuned copy beside it."""
    from safetensors.torch import load_file

    other = iter(load_file(origin.parent / f"{origin.name}-finetune" / "model.safetensors").values())
    _changed(folder, origin, lambda tensor: (tensor + next(other)) / 2)


def _pruned(folder: Path, origin: Path) -> None:
    _changed(folder, origin, lambda tensor: tensor * (tensor.abs() >= tensor.abs().quantile(0.2)))


def _bfloat16(folder: Path, origin: Path) -> None:
    import torch

    _changed(folder, origin, lambda tensor: tensor.to(torch.bfloat16))
    config = json.loads((folder / "config.json").read_text())
    _write_json(folder, "config.json", {**config, "dtype": "bfloat16"})


def _sharded(folder: Path, origin: Path) -> None:
    from transformers import AutoModel

    _copied(folder, origin)
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(origin, local_files_only=True).save_pretrained(folder, max_shard_size="40KB")


def _lora(folder: Path, origin: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(21)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"])
    adapted = get_peft_model(AutoModel.from_pretrained(origin, local_files_only=True), settings)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.peft_config["default"].base_model_name_or_path = origin.name
    adapted.save_pretrained(folder)


def _sentence(folder: Path, origin: Path) -> None:
    """Write what sentence-transformers saves: mean pooling and normalization over a transformer."""
    _copied(folder, origin)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    _write_json(folder, "modules.json", modules)
    _write_json(folder, "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    for path in ("1_Pooling", "2_Normalize"):
        (folder / path).mkdir()
    pooling = {"word_embedding_dimension": _SIZES["hidden_size"], "pooling_mode_mean_tokens": True}
    _write_json(folder / "1_Pooling", "config.json", pooling)


# What makes a model from nothing.
_ORIGINS: Mapping[str, Callable[[Path], None]] = {
    "minilm": lambda folder: _encoder(folder, "bert", 1, **_SIZES),
    "bert": lambda folder: _encoder(folder, "bert", 2, **{**_SIZES, "hidden_size": 48}),
    "distilbert": lambda folder: _encoder(folder, "distilbert", 3, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    "gpt2": lambda folder: _causal(folder, "gpt2", 4, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "llama": lambda folder: _causal(folder, "llama", 5, **_SIZES, num_key_value_heads=2),
    "qwen2": lambda folder: _causal(folder, "qwen2", 6, **_SIZES, num_key_value_heads=2),
    "t5": _t5,
    "vit": _vit,
    "clip": _clip,
    "resnet": _resnet,
    "whisper": _whisper,
    "timm-vit": lambda folder: _timm(folder, "test_vit", 13, img_size=_IMAGE_SIDE),
    "timm-resnet": lambda folder: _timm(folder, "test_resnet", 14),
    "timm-convnext": lambda folder: _timm(folder, "test_convnext", 15),
}
# What makes a model from another one, whose name the key begins with.
_VARIANTS: Mapping[str, Callable[[Path, Path], None]] = {
    "minilm-finetune": _fine_tuned,
    "minilm-merge": _merged,
    "minilm-pruned": _pruned,
    "minilm-bf16": _bfloat16,
    "minilm-sharded": _sharded,
    "minilm-lora": _lora,
    "minilm-sentence": _sentence,
}
MODELS: tuple[str, ...] = (*_ORIGINS, *_VARIANTS)
SMALL: tuple[str, ...] = ("minilm", "gpt2", "vit", "clip", "minilm-finetune", "minilm-sharded", "minilm-lora")
_CARD = "---\nlicense: {license}\nbase_model: {base}\npipeline_tag: feature-extraction\n---\n\n# {name}\n"


def write_checkpoints(folder: Path, names: Iterable[str] = SMALL) -> None:
    """Write ``zoo/<name>/`` for each name of `MODELS`, what it is made from first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _quiet()
        for name in names:
            target = folder / "zoo" / name
            if name in _ORIGINS:
                _ORIGINS[name](target)
                (target / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n\n# {name}\n", encoding="utf-8")
                continue
            base = name.partition("-")[0]
            _VARIANTS[name](target, folder / "zoo" / base)
            card = _CARD.format(license="apache-2.0", base=f"example/{base}", name=name)
            (target / "README.md").write_text(card, encoding="utf-8")


def write_checkpoint_zoo(folder: Path, names: Iterable[str] = SMALL) -> Path:
    """Write checkpoints, texts and images; return ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_texts(folder / "texts.jsonl")
    write_images(folder / "images")
    write_checkpoints(folder, names)
    return folder


def _quiet() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _arguments(arguments: list[str]) -> Iterator[Any]:
    yield Path(next(one for one in arguments if not one.startswith("--")))
    yield MODELS if "--all" in arguments else SMALL


if __name__ == "__main__":
    write_checkpoint_zoo(*_arguments(sys.argv[1:]))
