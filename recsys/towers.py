"""The two towers: items from their id and content, people from what they did. Both end in unit vectors."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.events import EVENT_TYPES
from recsys.next_session import numbers, sight
from recsys.sessions import N_GAPS, SESSION_GAP, Histories, border
from recsys.settings import Model

START = 0.01
"""Small, so that the first steps turn a vector and do not only lengthen it."""


class Dropout(nn.Module):
    """Dropout that draws its chances eight at a time, by the byte: torch's own takes a sixth of a training step."""

    def __init__(self, p: float):
        super().__init__()
        self.dropped = min(255, round(256 * p))

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element by chance `p`, to the nearest 1/256, and scale the others up: any shape."""
        if not self.training or not self.dropped:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept * (256 / (256 - self.dropped))


class ItemTower(nn.Module):
    """Item row -> unit vector: its own embedding plus the sum of its content features.

    In training a share of the items goes without its own embedding, so that content alone learns to place an item.
    """

    def __init__(self, features: list[list[int]], dim: int, buckets: int, id_dropout: float):
        super().__init__()
        self.ids = nn.Embedding(len(features), dim, sparse=True)
        self.content = nn.EmbeddingBag(buckets, dim, mode="sum", sparse=True)
        for table in (self.ids, self.content):
            nn.init.normal_(table.weight, std=START)
        self.id_dropout = id_dropout
        self.feature: Tensor
        self.start: Tensor
        self.describe(features)

    def describe(self, features: list[list[int]]) -> None:
        """Take the content of every row, one list of feature buckets each."""
        flat = [bucket for buckets in features for bucket in buckets]
        starts = np.concatenate([[0], np.cumsum([len(buckets) for buckets in features])])
        self.register_buffer("feature", torch.tensor(flat, dtype=torch.int64), persistent=False)
        self.register_buffer("start", torch.from_numpy(starts.astype(np.int64)), persistent=False)

    def features(self) -> list[list[int]]:
        """Return the feature buckets of every row."""
        start = self.start.tolist()
        flat = self.feature.tolist()
        return [flat[a:b] for a, b in pairwise(start)]

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (R,) -> unit vectors (R, d)."""
        content, has_content = self.place(rows)
        own = self.ids(rows)
        if self.training and self.id_dropout:
            dropped = has_content & (torch.rand(len(rows), device=rows.device) < self.id_dropout)
            own = own.masked_fill(dropped[:, None], 0.0)
        return F.normalize(own + content, dim=-1)

    def place(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return where content alone would put each row, (R, d), and which rows have any, (R,) bool."""
        buckets, length = self.buckets(rows)
        if not len(buckets):
            return torch.zeros(len(rows), self.ids.embedding_dim, device=rows.device), length > 0
        summed = self.content(buckets, torch.cumsum(length, 0) - length)
        return summed / length.clamp(min=1).sqrt()[:, None], length > 0

    def buckets(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of some rows one after the other, (F,), and how many each has, (R,)."""
        begin, length = self.start[rows], self.start[rows + 1] - self.start[rows]
        offsets = torch.cumsum(length, 0) - length
        place = torch.arange(int(length.sum()), device=rows.device) + torch.repeat_interleave(begin - offsets, length)
        return self.feature[place], length


class Block(nn.Module):
    """One pre-norm transformer block; an event sees itself and what came before it, or what `seen` (B, L, L) says."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.before_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), Dropout(dropout), nn.Linear(2 * dim, dim))
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor | None = None, first: int = 0) -> Tensor:
        """x (B, L, d) -> (B, L - first, d)."""
        return self._finish(x[:, first:] if first else x, self._attend(self.before_attention(x), seen, first))

    def last(self, x: Tensor, lengths: Tensor, inside: Tensor | None = None) -> Tensor:
        """The same for the last event of each row only: x (B, L, d), lengths (B,) -> (B, d); inside (B, L): what it sees, else all.

        Written out, with as few operations as there can be: of so small a run they are the cost, not the numbers.
        """
        newest, seen = _at(x, lengths), self.before_attention(x)
        if inside is None:
            inside = torch.arange(x.shape[1], device=x.device)[None, :] < lengths[:, None]
        query = self.query(self.before_attention(newest)).unflatten(-1, (self.heads, -1))
        pairs = self.key_value(seen).unflatten(-1, (2, self.heads, query.shape[-1]))
        match = (pairs[:, :, 0] * query[:, None]).sum(-1) * query.shape[-1] ** -0.5
        share = match.masked_fill(~inside[:, :, None], -math.inf).softmax(1)
        mixed = (pairs[:, :, 1] * share[..., None]).sum(1)
        return self._finish(newest, self.out(mixed.flatten(-2)))

    def _attend(self, x: Tensor, seen: Tensor | None, first: int) -> Tensor:
        def split(x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

        asked = x[:, first:] if first else x
        query = split(self.query(asked))
        key, value = (split(x) for x in self.key_value(x).chunk(2, dim=-1))
        mask = None if seen is None else seen[:, None, first:]
        mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        return self.out(mixed.transpose(1, 2).reshape(asked.shape))

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.drop(attended)
        return x + self.drop(self.mlp(self.before_mlp(x)))


class Transformer(nn.Module):
    """Causal transformer (SASRec: Kang & McAuley, ICDM 2018); seen (B, L, L): what each event sees instead of all before it."""

    def __init__(self, settings: Model):
        super().__init__()
        self.blocks = nn.ModuleList(Block(settings.dim, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, x: Tensor, items: Tensor, seen: Tensor | None = None, first: int = 0) -> Tensor:
        """x (B, L, d) -> (B, L - first, d). The last block skips the events before `first`."""
        *earlier, final = self.blocks
        for block in earlier:
            x = block(x, seen)
        return self.norm(final(x, seen, first))

    def last(self, x: Tensor, items: Tensor, lengths: Tensor, seen: Tensor | None = None) -> Tensor:
        """The state after the last event: x (B, L, d), lengths (B,) -> (B, d). The last block skips all other events."""
        *first, final = self.blocks
        for block in first:
            x = block(x, seen)
        newest: Tensor = final.last(x, lengths, None if seen is None else _at(seen, lengths))  # type: ignore[operator]
        return self.norm(newest)


class WeightedMean(nn.Module):
    """A weighted mean of the item vectors themselves (CORE: Hou et al., SIGIR 2022), made causal."""

    def __init__(self, settings: Model):
        super().__init__()
        self.reader = Transformer(settings)
        self.weigh = nn.Linear(settings.dim, 1)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """x, items (B, L, d) -> (B, L, d): at each event, the mean of all items so far."""
        weight = self.weigh(self.reader(x, items)).clamp(-20, 20).exp()
        return (weight * items).cumsum(1) / weight.cumsum(1)

    def last(self, x: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """The mean after the last event, (B, d)."""
        return _at(self(x, items), lengths)


class Recurrent(nn.Module):
    """GRU4Rec's reader (Hidasi et al., ICLR 2016)."""

    def __init__(self, settings: Model):
        super().__init__()
        self.gru = nn.GRU(settings.dim, settings.dim, settings.blocks, batch_first=True)
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """x (B, L, d) -> (B, L, d)."""
        return self.norm(self.gru(x)[0])

    def last(self, x: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """The state after the last event, (B, d)."""
        return _at(self(x, items), lengths)


ENCODERS = {"transformer": Transformer, "mean": WeightedMean, "gru": Recurrent}


class Column(nn.Module):
    """A further encoder beside those before it (progressive networks: Rusu et al., 2016, arXiv 1606.04671, Section 2).

    It reads what they read and, over a lateral connection, what they said of it; what it says itself counts nothing at first. A whole
    encoder stands for a layer there, and what the columns say adds up, for here is one task that changes and not one for each column.
    """

    def __init__(self, settings: Model, before: int):
        super().__init__()
        self.lateral = nn.Linear(before * settings.dim, settings.dim, bias=False)
        self.encoder = ENCODERS[settings.encoder](settings)
        self.out = nn.Linear(settings.dim, settings.dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, items: Tensor, said: list[Tensor]) -> Tensor:
        """x, items and what each column before said (B, L, d) -> (B, L, d)."""
        states: Tensor = self.encoder(self._read(x, said), items)
        return states

    def last(self, x: Tensor, items: Tensor, lengths: Tensor, said: list[Tensor]) -> Tensor:
        """The same after the last event, (B, d)."""
        newest: Tensor = self.encoder.last(self._read(x, said), items, lengths)  # type: ignore[operator]
        return newest

    def _read(self, x: Tensor, said: list[Tensor]) -> Tensor:
        beside: Tensor = self.lateral(torch.cat(said, dim=-1))
        return x + beside


class Head(nn.Module):
    """What is added to what the trunk says of people on one surface: nothing at first."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, said: Tensor) -> Tensor:
        """What the trunk says (..., d) -> what is added to it, (..., d)."""
        return F.linear(said, self.weight, self.bias)


class UserTower(nn.Module):
    """What a person did, oldest first -> unit vector. No row per person: a new event is a new vector.

    columns: encoders, the first among them; more are `widen`'s. heads: numbers (recsys.events.surface_number) of the surfaces on which
    people are more than what the trunk says of them (strategy `heads`), which are in `labels` (H,); more are `branch`'s.
    """

    labels: Tensor

    def __init__(self, settings: Model, length: int, columns: int = 1, heads: Sequence[int] = ()):
        super().__init__()
        self.settings = settings
        self.kind = nn.Embedding(len(EVENT_TYPES), settings.dim)
        self.gap = nn.Embedding(2 * N_GAPS, settings.dim)  # the second half: of timelines that are read from their end
        self.place = nn.Embedding(length, settings.dim)
        for table in (self.kind, self.gap, self.place):
            nn.init.normal_(table.weight, std=0.02)
        self.drop = Dropout(settings.dropout)
        self.encoder = ENCODERS[settings.encoder](settings)
        self.columns = nn.ModuleList()
        while len(self.columns) < columns - 1:
            self.widen()
        self.heads = nn.ModuleList(Head(settings.dim) for _ in heads)
        self.register_buffer("labels", torch.tensor(heads, dtype=torch.int64), persistent=False)

    def branch(self, surface: int) -> None:
        """Add a head for a surface, by its number, that changes no answer until it has learned."""
        self.heads.append(Head(self.settings.dim))
        self.labels = torch.cat([self.labels, self.labels.new_tensor([surface])])

    def widen(self) -> None:
        """Add a column that changes no answer until it has learned."""
        self.columns.append(Column(self.settings, 1 + len(self.columns)).train(self.training))

    def forward(self, items: Tensor, kinds: Tensor, gaps: Tensor, surface: Tensor | None = None) -> Tensor:
        """Items (B, L, d) unit vectors, kinds, gaps (B, L) -> (B, L, d): who the person is after each event.

        surface (B, L): the number of where what follows each event happens, 0 or none given where that is nowhere in particular.
        """
        x = self._read(items, kinds, gaps)
        said = [self.encoder(x, items)]
        for column in self.columns:
            said.append(column(x, items, said))
        return F.normalize(self._there(self._together(said), surface), dim=-1)

    def last(self, items: Tensor, kinds: Tensor, gaps: Tensor, lengths: Tensor, surface: Tensor | None = None) -> Tensor:
        """The same after the last event only, which is what serving runs: lengths (B,) >= 1, surface (B,) -> (B, d)."""
        x = self._read(items, kinds, gaps)
        if not len(self.columns):
            newest: Tensor = self.encoder.last(x, items, lengths)  # type: ignore[operator]
        else:
            said = [self.encoder(x, items)]
            *between, final = self.columns
            for column in between:
                said.append(column(x, items, said))
            newest = self._together([*(_at(one, lengths) for one in said), final.last(x, items, lengths, said)])  # type: ignore[operator]
        newest = self._there(newest, surface)
        return newest / newest.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)

    def _together(self, said: list[Tensor]) -> Tensor:
        first, *others = said
        return sum((column.out(one) for column, one in zip(self.columns, others, strict=True)), first)  # type: ignore[operator]

    def _there(self, said: Tensor, surface: Tensor | None) -> Tensor:
        """Add what the heads say of people on their surfaces: said (..., d), surface (...)."""
        if surface is None or not len(self.heads):
            return said
        return said + sum((surface == self.labels[n])[..., None] * head(said) for n, head in enumerate(self.heads))

    def _read(self, items: Tensor, kinds: Tensor, gaps: Tensor) -> Tensor:
        place = self.place.weight[: items.shape[1]]
        return self.drop(items * math.sqrt(items.shape[2]) + self.kind(kinds) + self.gap(gaps) + place)


class SessionTower(UserTower):
    """The same, read session by session (recsys.next_session): after each event, who the person is as the next session begins.

    A context token that stands behind an event sees all events up to it. Where that event is the last of its session, this is the token
    that opens the next one, and training asks it for all that the next one holds. Serving appends one behind the newest event, as training
    has it before a session: whoever is in the middle of one is answered as if it ended here and the next began, so that what they did a
    minute ago counts like all before it. Were they answered by the token that opened the running session, no tap would show before the
    next. How long the silence is that ends now, no token is told: a list is asked for before anybody knows. A token begins as what it
    stands behind (the paper's is the same for all): attention alone does not hold what was last as well (eval/LOG.md).
    """

    def __init__(self, settings: Model, length: int, border: int):
        super().__init__(settings, length + 1)  # a place for the session that begins, too
        self.context = nn.Parameter(0.02 * torch.randn(settings.dim))
        self.border = border

    def forward(self, items: Tensor, kinds: Tensor, gaps: Tensor, surface: Tensor | None = None) -> Tensor:
        """Items (B, L, d) unit vectors, kinds, gaps (B, L) -> (B, L, d): the token behind each event. It has no heads."""
        x, seen = self._tokens(items, kinds, gaps)
        return F.normalize(self.encoder(x, items, seen, items.shape[1] + 1), dim=-1)

    def last(self, items: Tensor, kinds: Tensor, gaps: Tensor, lengths: Tensor, surface: Tensor | None = None) -> Tensor:
        """The token behind the last event only: lengths (B,) >= 1 -> (B, d)."""
        x, seen = self._tokens(items, kinds, gaps)
        newest: Tensor = self.encoder.last(x, items, items.shape[1] + 1 + lengths, seen)  # type: ignore[operator]
        return newest / newest.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)

    def _tokens(self, items: Tensor, kinds: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the events and then the context tokens, (B, 2L + 1, d), and what each sees, (B, 2L + 1, 2L + 1)."""
        opens, number = numbers(gaps, self.border)
        told = items * math.sqrt(items.shape[2]) + self.kind(kinds) + self.gap(gaps)
        newest = torch.cat([torch.zeros_like(told[:, :1]), told], 1)
        begins = torch.cat([torch.zeros_like(number[:, :1]), number + 1], 1)
        tokens = torch.cat([told + self.place(number), newest + self.context + self.place(begins)], 1)
        return self.drop(tokens), sight(opens, number)


TABLES = ("items.ids.weight", "items.content.weight")
"""The embedding tables: their rows are trained one by one."""


def columns(names: Iterable[str]) -> int:
    """Return how many columns the user tower has in towers whose weights have these names."""
    return 1 + len({name.split(".")[2] for name in names if name.startswith("users.columns.")})


class Towers(nn.Module):
    """Both towers and the temperature between them."""

    def __init__(
        self,
        settings: Model,
        features: list[list[int]],
        length: int,
        session_gap: float = SESSION_GAP,
        columns: int = 1,
        heads: Sequence[int] = (),
    ):
        super().__init__()
        self.items = ItemTower(features, settings.dim, settings.features, settings.id_dropout)
        by_session = settings.objective == "next_session"
        self.users = SessionTower(settings, length, border(session_gap)) if by_session else UserTower(settings, length, columns, heads)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))
        self.popularity = nn.Parameter(torch.tensor(settings.popularity))

    def scale(self) -> Tensor:
        """One over the learned temperature, at most 100."""
        return self.log_scale.clamp(max=math.log(100)).exp()

    def tables(self) -> dict[str, nn.Parameter]:
        """The embedding tables whose rows are trained one by one."""
        named = dict(self.named_parameters())
        return {name: named[name] for name in TABLES}

    def dense(self) -> dict[str, nn.Parameter]:
        """Every parameter that is not such a table."""
        return {name: p for name, p in self.named_parameters() if name not in TABLES}

    @torch.inference_mode()
    def item_vectors(self) -> np.ndarray:
        """Return the unit vector of every row, (n, d) float32; row 0, the unknown item, is all zeros."""
        self.eval()
        rows = torch.arange(self.items.ids.num_embeddings, device=self.log_scale.device)
        vectors = torch.cat([self.items(part) for part in rows.split(65_536)])
        vectors[0] = 0
        return vectors.cpu().numpy()

    @torch.inference_mode()
    def user_vectors(self, histories: Histories, vectors: np.ndarray, block: int = 1024) -> np.ndarray:
        """Return the unit vector of every person, (B, d) float32; all zeros where nothing is known of them."""
        self.eval()
        found = np.zeros((len(histories), vectors.shape[1]), np.float32)
        items = torch.from_numpy(vectors)
        for first in range(0, len(histories), block):
            part = histories[first : first + block]
            item, kind, gap, length = part.padded()
            told = np.flatnonzero(length)
            if len(told):
                rows, kinds, gaps, lengths = (torch.from_numpy(x[told]) for x in (item, kind, gap, length))
                where = torch.from_numpy(part.surface[told]) if len(part.surface) else torch.zeros(len(told), dtype=torch.int32)
                seen = self.users.last(*(given.to(self.log_scale.device) for given in (items[rows], kinds, gaps, lengths, where)))
                found[first + told] = seen.cpu().numpy()
        return found


def _at(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, L, d), lengths (B,) -> the state at each row's last event, (B, d)."""
    return x.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, x.shape[2]))[:, 0]
