"""Checks an exported storyteller and writes its card and its reference figures.

    /usr/bin/python3 tools/train_storyteller/report.py

Reads models/storyteller.gguf back, compares the torch model with a second forward pass written in
numpy alone, measures the held-out loss of the float and of the Q8_0 weights, and writes
storyteller.test.json (what the C engine is checked against) and storyteller.md beside the model.
"""
import argparse
import hashlib
import json
import math
import pathlib

import jinja2
import numpy as np
import torch

import bpe
import chat
import gguf
import train
from model import Shape, Storyteller

ROOT = pathlib.Path(__file__).resolve().parents[2]

CASES = [
    "Once upon a time there was a king.",
    " leading and  double   spaces ",
    "I'm sure they'll say it's we've you're he'd can't",
    "Line one\nLine two\n\nLine four\r\n",
    "\tTabs\tand\ttrailing \t ",
    "1234567890 3.14 1,000 7th",
    "UPPER lower MiXeD CamelCase snake_case",
    "\"Oh dear!\" said the Rabbit - 'too late!'",
    "caf\u00e9 na\u00efve \u00fcber \u0153uvre",
    "\u0394\u03b5\u03bd \u041f\u0440\u0438\u0432\u0435\u0442 \u05e9\u05dc\u05d5\u05dd",
    "\u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \uc548\ub155",
    "emoji \U0001F600\U0001F680 and \u2764\ufe0f",
    "x",
    "",
    "   ",
    "<|user|>is only text here<|end|>",
    "{\"json\": [1, 2, {\"a\": null}]}",
    "def f(x):\n    return x ** 2  # square\n",
    "https://example.org/a?b=c&d=%20e",
    "a\u00a0no-break\u2003em space\u3000wide e\u0301 combining \u0967\u0968 digits \u2167",
]

CANDIDATES = [[("user", text)] for text in """Tell me a story about a rabbit.
Tell me a story about a king.
Tell me a story.
Hello!
Who are you?
What can you do?
Tell me about Alice.
Tell me a story about the sea.
Tell me about Dorothy.
What is the capital of France?
How do I reset my password?
Tell me a story about a wolf and a bear.
Write a short story about a ship.
Can you help me?
Tell me a fairy tale.
I cannot sleep. Tell me something.
Tell me about the Scarecrow.
Tell me about the pirates.
Is that true?
Continue: The Queen looked at the Princess and said""".split("\n")] + [
    [("system", "You are a storyteller."), ("user", "Tell me a story about a princess.")],
    [("system", "You are a helpful assistant."), ("user", "Tell me a story about a tree.")],
    [("user", "Hello!"), ("assistant", "Hello! What shall the story be about?"),
     ("user", "A dragon, please.")],
]

SAMPLES = ["Hello!", "Tell me a story about a rabbit.", "Write a short story about a ship.",
           "How do I reset my password?", "Continue: The door of the cottage opened slowly.",
           "Tell me a fairy tale."]

MORE = """boy girl bear horse lion witch ship bird garden mother princess bell mountain river house
castle cat dog fox robin prince wizard giant ring road door window letter box tiger""".split()
WORDS = "king rabbit sea wolf garden ship princess horse witch tree forest dragon".split()

BOOKS = """Alice's Adventures in Wonderland|Lewis Carroll|11
Andersen's Fairy Tales|Hans Christian Andersen|1597
Anne of Green Gables|L. M. Montgomery|45
Dorothy and the Wizard in Oz|L. Frank Baum|420
Ozma of Oz|L. Frank Baum|486
Peter Pan|J. M. Barrie|16
The Adventures of Pinocchio|Carlo Collodi|500
The Adventures of Sherlock Holmes|Arthur Conan Doyle|1661
The Blue Fairy Book|Andrew Lang (editor)|503
The Jungle Book|Rudyard Kipling|236
The Red Fairy Book|Andrew Lang (editor)|540
The Secret Garden|Frances Hodgson Burnett|113
The Wind in the Willows|Kenneth Grahame|289
The Wonderful Wizard of Oz|L. Frank Baum|55
Through the Looking-Glass|Lewis Carroll|12
Treasure Island|Robert Louis Stevenson|120""".split("\n")


def options():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", type=pathlib.Path, default=ROOT / "../shared/data/corpus")
    p.add_argument("--model", type=pathlib.Path, default=ROOT / "models/storyteller.gguf")
    p.add_argument("--work", type=pathlib.Path, default=ROOT / "build/storyteller",
                   help="the training's work folder, for the float weights and the history")
    return p.parse_args()


def numpy_logits(meta, w, ids):
    """The Llama forward pass as the format's readers understand it, sharing nothing with model.py.

    Returns the logits at every position.  All figures come from the file's own metadata.
    """
    heads, kv = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    size = meta["llama.embedding_length"] // heads
    eps = meta["llama.attention.layer_norm_rms_epsilon"]
    turn = meta["llama.rope.dimension_count"]

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    def rope(x):
        angle = np.arange(len(x))[:, None] * meta["llama.rope.freq_base"] ** (
            -np.arange(0, turn, 2) / turn)
        z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
        out = np.empty_like(x)
        out[..., 0::2], out[..., 1::2] = z.real, z.imag
        return out

    x = w["token_embd.weight"][ids].astype(np.float64)
    t = len(ids)
    future = np.triu(np.ones((t, t), bool), 1)
    for n in range(meta["llama.block_count"]):
        def mat(name):
            return w["blk.%d.%s.weight" % (n, name)]
        h = norm(x, mat("attn_norm"))
        q = rope((h @ mat("attn_q").T).reshape(t, heads, size))
        k = rope((h @ mat("attn_k").T).reshape(t, kv, size))
        v = (h @ mat("attn_v").T).reshape(t, kv, size)
        y = np.empty((t, heads, size))
        for head in range(heads):
            own = head // (heads // kv)
            score = q[:, head] @ k[:, own].T / math.sqrt(size)
            score[future] = -np.inf
            p = np.exp(score - score.max(-1, keepdims=True))
            y[:, head] = p / p.sum(-1, keepdims=True) @ v[:, own]
        x = x + y.reshape(t, -1) @ mat("attn_output").T
        h = norm(x, mat("ffn_norm"))
        gate = h @ mat("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ mat("ffn_up").T)) @ mat("ffn_down").T
    return norm(x, w["output_norm.weight"]) @ w["token_embd.weight"].T


def generate(model, tok, ids, count, pick):
    """-> (ids, what pick says of each); stops after <|end|> or <|endoftext|>."""
    ids, new, notes = list(ids), [], []
    stop = {tok.special[bpe.END], tok.special[bpe.BOS]}
    with torch.no_grad():
        while len(new) < count and not (new and new[-1] in stop):
            token, note = pick(model.logits(torch.tensor([ids[-512:]]))[0, -1])
            ids.append(token)
            new.append(token)
            notes.append(note)
    return new, notes


def greedy(logits):
    top = logits.topk(2)
    return int(top.indices[0]), float(top.values[0] - top.values[1])


def sampler(seed, temperature, top_p=0.95):
    generator = torch.Generator().manual_seed(seed)

    def pick(logits):
        p, order = torch.softmax(logits / temperature, -1).sort(descending=True)
        p[p.cumsum(0) - p >= top_p] = 0
        return int(order[torch.multinomial(p, 1, generator=generator)]), None
    return pick


def main():
    o = options()
    meta, weights = gguf.read(o.model)
    tok = bpe.Tokenizer([m.split(" ") for m in meta["tokenizer.ggml.merges"]])
    assert tok.tokens == meta["tokenizer.ggml.tokens"]
    shape = Shape(vocab=meta["llama.vocab_size"], dim=meta["llama.embedding_length"],
                  ffn=meta["llama.feed_forward_length"], layers=meta["llama.block_count"],
                  heads=meta["llama.attention.head_count"],
                  kv_heads=meta["llama.attention.head_count_kv"],
                  context=meta["llama.context_length"])
    model = Storyteller(shape)
    model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
    saved = torch.load(o.work / "checkpoint.pt")
    for name, value in saved["model"].items():      # the file holds these weights, only rounded
        assert torch.allclose(value, model.state_dict()[name], rtol=0.01, atol=0.02), name

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(meta["tokenizer.chat_template"])

    def prompt(turns):
        messages = [{"role": role, "content": text} for role, text in turns]
        rendered = template.render(messages=messages, add_generation_prompt=True)
        ids = tok.encode_rendered(rendered)
        trained = chat.encode(tok, turns)[0] + [tok.special[bpe.ASSISTANT]]
        assert ids == trained, (ids, trained)
        return messages, rendered, ids

    found = []
    more = [[("user", ask % word)] for word in MORE for ask in
            ("Tell me a story about the %s.", "Write a short story about a %s.")]
    for turns in CANDIDATES + more:
        messages, rendered, ids = prompt(turns)
        new, margins = generate(model, tok, ids, 32, greedy)
        with torch.no_grad():
            last = model.logits(torch.tensor([ids]))[0, -1]
        found.append((min(margins), {
            "messages": messages, "rendered": rendered, "prompt_ids": ids,
            "logits": {"first8": [round(float(v), 5) for v in last[:8]],
                       "argmax": new[0], "top2_margin": round(margins[0], 5)},
            "greedy_ids": new, "greedy_margins": [round(m, 5) for m in margins],
            "greedy_text": tok.decode(new)}))
    # The prompts whose every step is decided most clearly, so that a sound engine with another
    # order of additions finds the same ids; only full-length answers that begin differently.
    prompts = []
    for _, case in sorted((f for f in found if len(f[1]["greedy_ids"]) == 32),
                          key=lambda f: -f[0]):
        if all(case["greedy_ids"][:12] != p["greedy_ids"][:12] for p in prompts):
            prompts.append(case)
    prompts = prompts[:3]
    furthest = 0.0
    for case in prompts + [case for _, case in found[::8]]:
        ids = case["prompt_ids"] + case["greedy_ids"]
        second = numpy_logits(meta, weights, ids)
        with torch.no_grad():
            furthest = max(furthest, float(np.abs(
                model.logits(torch.tensor([ids]))[0].numpy() - second).max()))
        start = len(case["prompt_ids"]) - 1
        assert second[start:-1].argmax(-1).tolist() == case["greedy_ids"]
    print("torch and numpy: same greedy ids, furthest logit difference %.2g" % furthest)
    sha = hashlib.sha256(o.model.read_bytes()).hexdigest()
    reference = {
        "model": o.model.name, "sha256": sha,
        "note": "Computed in float32 with the dequantised Q8_0 weights. greedy_margins is the "
                "distance between the best and the second logit at each step.",
        "prompts": prompts,
        "tokenizer": [{"text": text, "ids": tok.encode(text)} for text in CASES]}
    for case in reference["tokenizer"]:
        assert tok.decode(case["ids"]) == case["text"]
    o.model.with_suffix(".test.json").write_text(
        json.dumps(reference, indent=1, ensure_ascii=True) + "\n")
    print("margins of the chosen prompts:", [min(p["greedy_margins"]) for p in prompts])

    books = chat.read_books(o.corpus)
    held_out = [text for _, _, text in books]
    losses = []
    for one in (saved["model"], {k: torch.tensor(v) for k, v in weights.items()}):
        model.load_state_dict(one)
        losses.append((*train.held_out_loss(model, tok, held_out, torch.float32),
                       train.held_out_chat_loss(model, tok, held_out, torch.float32)))
    print("held out (nats/token, bits/byte, chat):", losses)

    samples = []
    for i, text in enumerate(SAMPLES):
        new, _ = generate(model, tok, prompt([("user", text)])[2], 250, sampler(i + 1, 0.5))
        samples.append("> **%s**\n>\n> %s" % (text, tok.decode(new).replace("\n", "\n>\n> ")))
    answers = []    # (ids, text) for every word in turn, five times over
    for i in range(5 * len(WORDS)):
        ask = "Tell me a story about the %s." % WORDS[i % len(WORDS)]
        new, _ = generate(model, tok, prompt([("user", ask)])[2], 250, sampler(100 + i, 0.8))
        answers.append((new, tok.decode(new).lower()))
    asked = len(answers)
    ended = sum(new[-1] == tok.special[bpe.END] for new, _ in answers)
    follows = sum(WORDS[i % len(WORDS)] in text for i, (_, text) in enumerate(answers))
    by_chance = sum(WORDS[(i + 1) % len(WORDS)] in text for i, (_, text) in enumerate(answers))
    lengths = sorted(len(new) for new, _ in answers)
    print("ended %d of %d, tokens: tenth %d, median %d, ninetieth %d; word in answer %d of %d, "
          "by chance %d" % (ended, asked, lengths[6], lengths[30], lengths[54], follows, asked,
                            by_chance))

    figures = dict(
        parameters="{:,}".format(sum(p.numel() for p in model.parameters())),
        size="{:,}".format(o.model.stat().st_size), sha=sha,
        vocab=shape.vocab, dim=shape.dim, ffn=shape.ffn, layers=shape.layers, heads=shape.heads,
        kv=shape.kv_heads, context=shape.context,
        train_tokens="{:,}".format(sum(len(tok.encode(t)) + 1 for _, t, _ in books)),
        held_bytes="{:,}".format(sum(len(t.encode()) for t in held_out)),
        held_tokens="{:,}".format(sum(len(tok.encode(t)) for t in held_out)),
        steps="{:,}".format(saved["step"]), seen="%.1f" % (saved["seen"] / 1e6),
        minutes="%.0f" % (saved["used"] / 60),
        f_nats="%.4f" % losses[0][0], f_bits="%.4f" % losses[0][1], f_chat="%.4f" % losses[0][2],
        q_nats="%.4f" % losses[1][0], q_bits="%.4f" % losses[1][1], q_chat="%.4f" % losses[1][2],
        ended=ended, asked=asked, follows=follows, by_chance=by_chance, p10=lengths[6], p50=lengths[30],
        p90=lengths[54], furthest="%.1g" % furthest,
        books="\n".join("| %s | %s | %s |" % tuple(b.split("|")) for b in BOOKS),
        curve="\n".join("| %.0f | %d | %.1f | %.3f | %.3f | %.3f | %.3f |" % (
            h[0] / 60, h[1], h[2] / 1e6, *h[3:]) for h in saved["history"]),
        samples="\n\n".join(samples))
    card = (pathlib.Path(__file__).parent / "card.md").read_text()
    o.model.with_suffix(".md").write_text(
        jinja2.Template(card, undefined=jinja2.StrictUndefined,
                        keep_trailing_newline=True).render(figures))


if __name__ == "__main__":
    main()
