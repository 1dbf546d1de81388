"""Trains the storyteller, pare's bundled model, and writes it as a GGUF file.

    /usr/bin/python3 tools/train_storyteller/train.py --minutes 50

Debian packages: python3-torch python3-regex libopenblas0-pthread (the last for speed only).
The learning rate follows the share of the time that has passed, so the model is always annealed
when the time is up, however busy the machine is.  Every few minutes the state goes to the work
folder and the model to --out, so a usable file exists early; --resume goes on after a stop.
With --steps the schedule follows the step instead, and a run can be repeated exactly.

One process works for each core, on its own rows, and they meet once a step to add up their
gradients.  Threads inside a step would meet hundreds of times, and on a machine that is busy with
other things each of these meetings waits for the scheduler.
"""
import argparse
import json
import math
import multiprocessing
import os
import pathlib
import random
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Every step allocates and frees the same large buffers.  By default glibc maps and unmaps each of
# them, and the page faults cost a tenth of the time; it reads these settings only at its start.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "16000000000",
             "MALLOC_TOP_PAD_": "500000000", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
if __name__ == "__main__" and not ALLOCATOR.keys() <= os.environ.keys():
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})

import torch

import bpe
import chat
import gguf
from model import Shape, Storyteller, loss_sum


def options():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", type=pathlib.Path, default=ROOT / "../shared/data/corpus",
                   help="folder of .txt books (default ../shared/data/corpus beside the project)")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "models/storyteller.gguf")
    p.add_argument("--work", type=pathlib.Path, default=ROOT / "build/storyteller",
                   help="folder for the tokenizer, the checkpoint and the log")
    p.add_argument("--minutes", type=float, default=50, help="wall-clock budget of the training")
    p.add_argument("--steps", type=int, help="train this many steps, whatever time they take")
    p.add_argument("--every", type=float, default=4, help="minutes between checkpoints")
    p.add_argument("--workers", type=int, default=2, help="processes; one for each core")
    p.add_argument("--seed", type=int, default=7273)
    p.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    p.add_argument("--dropout", type=float, default=0.15)
    # The books are few and read many times over, so the decay is ten times the usual one.
    p.add_argument("--decay", type=float, default=1.0, help="weight decay of the matrices")
    p.add_argument("--chat", type=float, default=0.6, help="share of rows with conversations")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --work")
    p.add_argument("--export", action="store_true",
                   help="only write --out from the checkpoint in --work")
    return p.parse_args()


def tokenizer(work, books, vocab):
    path = work / "merges.json"
    if not path.exists():
        merges = bpe.learn_merges("".join(text for _, text, _ in books),
                                  vocab - 256 - len(bpe.SPECIAL))
        path.write_text(json.dumps(merges))
    return bpe.Tokenizer(json.loads(path.read_text()))


class Rows:
    """An endless supply of training rows: windows of a book, or conversations packed together."""

    def __init__(self, tok, books, share, rng):
        self.tok, self.share, self.rng = tok, share, rng
        self.passages = chat.Passages([text for _, text, _ in books], rng)
        self.stream = [i for _, text, _ in books
                       for i in [tok.special[bpe.BOS]] + tok.encode(text)]

    def row(self, length):
        if self.rng.random() >= self.share:
            at = self.rng.randrange(len(self.stream) - length)
            return self.stream[at:at + length + 1], [1.0] * (length + 1)
        # A conversation stands at the start of the row, as it does when the model is used.
        ids, weights = [], []
        while len(ids) <= length:
            more, graded = chat.encode(self.tok, self.passages.conversation())
            ids += more + [self.tok.special[bpe.BOS]]
            weights += graded + [0.0]
        return ids[:length + 1], weights[:length + 1]

    def batch(self, rows, length):
        ids, weights = zip(*(self.row(length) for _ in range(rows)))
        ids, weights = torch.tensor(ids), torch.tensor(weights)
        return ids[:, :-1], ids[:, 1:], weights[:, 1:]


def held_out_loss(model, tok, texts, low, length=512):
    """Nats per token and bits per byte, in windows of `length` that do not overlap.

    A model that has seen only rows of 256 tokens is lost in the second half of such a window: the
    figure stands still until the rows become long, and then drops.
    """
    nats = tokens = size = 0
    with torch.no_grad():
        for text in texts:
            ids = [tok.special[bpe.BOS]] + tok.encode(text)
            size += len(text.encode())
            tokens += len(ids) - 1
            for i in range(0, len(ids) - 1, length):
                part = torch.tensor(ids[i:i + length + 1])[None]
                one = torch.ones(1, part.shape[1] - 1)
                nats += loss_sum(model, part[:, :-1], part[:, 1:], one, low).item()
    return nats / tokens, nats / math.log(2) / size


def held_out_chat_loss(model, tok, texts, low, count=150):
    """Nats per token of the assistant's words, in conversations made of the held-out text."""
    passages = chat.Passages(texts, random.Random(1))
    nats = graded = 0
    with torch.no_grad():
        for _ in range(count):
            ids, weights = chat.encode(tok, passages.conversation())
            ids, weights = torch.tensor(ids[:513])[None], torch.tensor(weights[:513])[None, 1:]
            nats += loss_sum(model, ids[:, :-1], ids[:, 1:], weights, low).item()
            graded += weights.sum().item()
    return nats / graded


def export(path, state, shape, tok):
    ids = tok.special
    metadata = [
        ("general.architecture", gguf.STR, "llama"),
        ("general.type", gguf.STR, "model"),
        ("general.name", gguf.STR, "storyteller"),
        ("general.description", gguf.STR, "A small storyteller, bundled with pare so that "
         "everything runs offline. It is not an assistant."),
        ("general.license", gguf.STR, "apache-2.0"),
        ("general.size_label", gguf.STR, "5M"),
        ("general.languages", (gguf.ARR, gguf.STR), ["en"]),
        ("general.file_type", gguf.U32, 7),
        ("general.quantization_version", gguf.U32, 2),
        ("general.alignment", gguf.U32, gguf.ALIGN),
        ("llama.vocab_size", gguf.U32, shape.vocab),
        ("llama.context_length", gguf.U32, shape.context),
        ("llama.embedding_length", gguf.U32, shape.dim),
        ("llama.block_count", gguf.U32, shape.layers),
        ("llama.feed_forward_length", gguf.U32, shape.ffn),
        ("llama.attention.head_count", gguf.U32, shape.heads),
        ("llama.attention.head_count_kv", gguf.U32, shape.kv_heads),
        ("llama.attention.layer_norm_rms_epsilon", gguf.F32, shape.eps),
        ("llama.rope.dimension_count", gguf.U32, shape.head_dim),
        ("llama.rope.freq_base", gguf.F32, shape.theta),
        ("tokenizer.ggml.model", gguf.STR, "gpt2"),
        ("tokenizer.ggml.pre", gguf.STR, "gpt-2"),
        ("tokenizer.ggml.tokens", (gguf.ARR, gguf.STR), tok.tokens),
        ("tokenizer.ggml.token_type", (gguf.ARR, gguf.I32),
         [3 if t in ids else 1 for t in tok.tokens]),
        ("tokenizer.ggml.merges", (gguf.ARR, gguf.STR), [" ".join(m) for m in tok.merges]),
        ("tokenizer.ggml.bos_token_id", gguf.U32, ids[bpe.BOS]),
        ("tokenizer.ggml.eos_token_id", gguf.U32, ids[bpe.END]),
        ("tokenizer.ggml.eot_token_id", gguf.U32, ids[bpe.END]),
        ("tokenizer.ggml.add_bos_token", gguf.BOOL, False),
        ("tokenizer.ggml.add_eos_token", gguf.BOOL, False),
        ("tokenizer.chat_template", gguf.STR, chat.TEMPLATE),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    gguf.write(path, metadata, [(name, t.float().numpy()) for name, t in state.items()])


def schedule(share, step):
    """Warm-up over 150 steps, then a cosine down to nothing as `share` goes from 0 to 1."""
    return min(1, (step + 1) / 150) * 0.5 * (1 + math.cos(math.pi * min(share, 1)))


class Worker:
    """One replica of the model; all replicas take the same steps and so remain the same."""

    def __init__(self, rank, o, shape, tok, books, saved):
        self.rank, self.o = rank, o
        torch.manual_seed(o.seed)
        self.model = Storyteller(shape)
        self.params = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for p in self.params if p.dim() == 2], "weight_decay": o.decay},
             {"params": [p for p in self.params if p.dim() == 1], "weight_decay": 0.0}],
            lr=o.lr, betas=(0.9, 0.95), eps=1e-8)
        self.step, self.seen = 0, 0
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            for group, decay in zip(self.optimizer.param_groups, (o.decay, 0.0)):
                group["weight_decay"] = decay
            self.step, self.seen = saved["step"], saved["seen"]
        seed = o.seed + 1000 * self.step + rank
        torch.manual_seed(seed)     # from here on the replicas see different rows and dropout
        self.rows = Rows(tok, books, o.chat, random.Random(seed))

    def train_step(self, share, sums, barrier):
        """`sums` is shared memory, one flat gradient (and the loss) for each worker."""
        # Short rows first: attention is cheaper, and long memory is learnt quickly at the end.
        length, lines = (256, 16) if share < 0.6 else (512, 8)
        ids, target, weight = self.rows.batch(max(1, lines // self.o.workers), length)
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_sum(self.model, ids, target, weight / weight.sum(), torch.bfloat16,
                        self.o.dropout)
        loss.backward()
        mine, at = sums[self.rank], 1
        mine[0] = loss.item()
        for p in self.params:
            mine[at:at + p.numel()] = p.grad.flatten()
            at += p.numel()
        barrier.wait(3600)
        mean, at = sums.mean(0), 1
        for p in self.params:
            p.grad.copy_(mean[at:at + p.numel()].view_as(p))
            at += p.numel()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.o.lr * schedule(share, self.step)
        self.optimizer.step()
        self.step, self.seen = self.step + 1, self.seen + ids.numel() * self.o.workers
        return mean[0].item()


def follow(worker, share, sums, barrier):
    """What every worker but the first does: wait for the first, then take the step with it."""
    while True:
        barrier.wait(3600)
        if share.item() >= 1:
            return
        worker.train_step(share.item(), sums, barrier)


def main():
    o = options()
    torch.set_num_threads(1)
    o.work.mkdir(parents=True, exist_ok=True)
    checkpoint = o.work / "checkpoint.pt"
    shape = Shape()
    books = chat.read_books(o.corpus)
    if not books:
        sys.exit("no .txt books in %s" % o.corpus)
    tok = tokenizer(o.work, books, shape.vocab)
    saved = torch.load(checkpoint) if o.resume or o.export else None
    if o.export:
        export(o.out, saved["model"], shape, tok)
        return

    first = Worker(0, o, shape, tok, books, saved)
    model = first.model
    size = sum(p.numel() for p in first.params)
    sums = torch.zeros(o.workers, 1 + size).share_memory_()
    shared_share = torch.zeros((), dtype=torch.float64).share_memory_()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(o.workers)
    for rank in range(1, o.workers):
        worker = Worker(rank, o, shape, tok, books, saved)
        context.Process(target=follow, args=(worker, shared_share, sums, barrier),
                        daemon=True).start()
    torch.manual_seed(o.seed + 1000 * first.step)

    used, history = (saved["used"], saved["history"]) if saved else (0.0, [])
    began, due = time.monotonic() - used, used + o.every * 60
    held_out = [text for _, _, text in books]
    log = open(o.work / "log.txt", "a", buffering=1)
    print("%d parameters, %d training tokens, %d books" % (
        size, len(first.rows.stream), len(books)), file=log)
    recent, count = 0.0, 0
    while True:
        used = time.monotonic() - began
        share = first.step / o.steps if o.steps else used / (o.minutes * 60)
        if share >= 1 or used >= due:
            low = torch.bfloat16
            nats, bits = held_out_loss(model, tok, held_out, low)
            talk = held_out_chat_loss(model, tok, held_out, low)
            history.append((used, first.step, first.seen, recent / max(count, 1),
                            nats, bits, talk))
            print("%5.1f min  step %d  %.2fM tokens  train %.3f  held out %.3f nats/token, "
                  "%.3f bits/byte  chat %.3f" % (
                      used / 60, first.step, first.seen / 1e6, *history[-1][3:]), file=log)
            recent, count, due = 0.0, 0, used + o.every * 60
            torch.save({"model": model.state_dict(), "optimizer": first.optimizer.state_dict(),
                        "step": first.step, "seen": first.seen, "used": used,
                        "history": history}, str(checkpoint) + ".part")
            os.replace(str(checkpoint) + ".part", checkpoint)
            export(o.out, model.state_dict(), shape, tok)
        shared_share.fill_(share)
        barrier.wait(3600)
        if share >= 1:
            break
        recent, count = recent + first.train_step(share, sums, barrier), count + 1


if __name__ == "__main__":
    main()
