"""Strict test-then-train on one timeline: answer a window, reveal it, learn it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from time import thread_time

import numpy as np
from scipy import sparse

from eval import lists, metrics
from eval.answers import Answers, Asked
from eval.cost import Cost, Meter, measured, probes
from eval.methods import Method, Released, Saved
from eval.protocols import Plan
from eval.results import Results
from eval.run import Run
from eval.side_by_side import side_by_side
from eval.slices import slices
from eval.timeline import Block, Learned, Queries, Questions, assert_unanswered
from recsys.errors import BadInput
from recsys.progress import Step, silent

KS = (10, 20)

SAMPLED = 1_000
"""Queries of each window that every release is asked for the matrix, at most."""

WINDOWS = 40
"""Up to so many windows the matrix is drawn without being asked for: its cost grows with their square."""


@dataclass
class Entrant:
    """A method under one seed. lessons: how many of the lessons it has learned."""

    method: Method
    seed: int
    lessons: int = 0


def replay(
    plan: Plan,
    methods: Sequence[Method],
    ks: Sequence[int] = KS,
    run: Run | None = None,
    matrix: bool | None = False,
    progress: Step = silent,
    watch: Callable[[Asked, Answers], None] = lambda asked, answers: None,
) -> Results:
    """Answer the windows of a plan; before each, learn all that was asked since the last, and no more.

    methods: several of one name are one method under several seeds. With a run, every answer is written there as soon as there is
    one, and those that it holds already are read instead. matrix: score the releases of each method on all windows; None: where
    they are few. watch: is told of every answer.
    """
    stage = _Stage(plan, run, tuple(ks), _sampled(plan, methods, matrix))
    entrants = [Entrant(method, [other.name for other in methods[:n]].count(method.name)) for n, method in enumerate(methods)]
    results = Results(plan.protocol, list(ks))
    for window, questions in plan.questions():
        stage.open(window, questions)
        results.windows.append(stage.asked)
        for entrant in entrants:
            answers = stage.turn(entrant)
            results.add(answers)
            watch(stage.asked, answers)
            progress(entrant.method.name, window - plan.first + 1, plan.behind - plan.first)
    if not results.windows:
        raise BadInput("no window holds anything to ask; the log is too short or holds no positive events")
    return results


class _Stage:
    """Where the methods take their turns: one window after the other."""

    def __init__(self, plan: Plan, run: Run | None, ks: tuple[int, ...], samples: list[list[Block]]):
        self.plan, self.run, self.ks, self.samples = plan, run, ks, samples
        self.lessons: list[tuple[int, int]] = []

    def open(self, window: int, questions: Questions) -> None:
        """Go on to a window; what lies between the last one and this becomes the newest lesson."""
        timeline = self.plan.timeline
        self.lessons.append((self.lessons[-1][1] if self.lessons else 0, window))
        self.window, self.questions, self.count = window, questions, timeline.counts_before(window)
        # new is what was met first in the window before; where that is the first of all, whose items may be of any age, nothing is
        first_new = timeline.rows_before(window - 1) if window > 1 else questions.n_items
        self.asked = Asked(
            window, questions.begin, questions.n_items, questions.start, questions.owner, questions.counts,
            slices(questions, first_new, self.count),
        )  # fmt: skip
        self._features: sparse.csr_matrix | None = None
        if self.run:
            self.run.write_asked(self.asked)

    def turn(self, entrant: Entrant) -> Answers:
        """Let a method answer the window, unless it has done so in an earlier part of the run."""
        method, seed = entrant.method, entrant.seed
        if self.run and self.run.has(method.name, seed, self.window):
            return self.run.read(method.name, seed, self.window)
        spent, learned = self._learn(entrant)
        release_bytes = method.save(self.run.releases) if self.run and isinstance(method, Saved) else method.size()
        ranks, shown, seconds = answer(method, self.questions.blocks(), self.questions.exclude_seen, max(self.ks))
        index_loss, stale_loss = probes(method, self.questions, ranks)
        cost = Cost(
            seconds_learn=spent.seconds + learned.seconds_borrowed,
            seconds_answer=seconds,
            examples=learned.examples,
            peak_mb=spent.peak_mb,
            release_bytes=release_bytes,
            index_loss=index_loss,
            stale_loss=stale_loss,
        )
        matrix = self._matrix_row(method) if self.samples and isinstance(method, Released) else None
        answers = Answers(method.name, seed, self.window, ranks, self._figures(shown), cost, shown, matrix)
        if self.run:
            self.run.write(answers)
        return replace(answers, shown=None)

    def _learn(self, entrant: Entrant) -> tuple[Meter, Learned]:
        """Learn the newest lesson, and before it any that the method missed while its answers were read."""
        method, timeline = entrant.method, self.plan.timeline
        *earlier, newest = self.lessons
        missed = earlier[entrant.lessons :]
        if missed and self.run and isinstance(method, Saved) and method.load(self.run.releases, timeline.bounds[newest[0]]):
            missed = []
        for lesson in missed:
            method.learn(timeline.lesson(*lesson))
        window = timeline.lesson(*newest)
        assert_unanswered(window, self.questions)
        with measured() as spent:
            learned = method.learn(window)
        entrant.lessons = len(self.lessons)
        return spent, learned

    def _matrix_row(self, method: Method) -> np.ndarray:
        """Return the recall of what a method knows now on the sample of every window, (W,)."""
        return np.array([_recall(method, blocks, self.questions.exclude_seen, max(self.ks)) for blocks in self.samples])

    def _figures(self, shown: np.ndarray) -> dict[str, float]:
        """Return what the lists of a window are like, at every length."""
        n_items, share = self.questions.n_items, lists.share(self.count)
        if self._features is None:
            timeline = self.plan.timeline
            self._features = lists.features(self.questions, timeline.vocab.ids, timeline.catalogue)
        figures: dict[str, float] = {}
        for k in self.ks:
            best = shown[:, :k]
            figures[f"coverage@{k}"] = lists.coverage(best, n_items)
            figures[f"gini@{k}"] = lists.gini(best, n_items)
            figures[f"novelty@{k}"] = lists.novelty(best, share)
            figures[f"diversity@{k}"] = lists.intra_list_diversity(best, self._features)
        return figures


def answer(method: Method, blocks: Iterable[Block], exclude_seen: bool, k: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Ask a method, on every core; return ranks (R,), the best `k` of each query (Q, k), and the CPU seconds of the method's own work."""

    def of(block: Block) -> tuple[np.ndarray, np.ndarray, float]:
        queries, start, relevant = block
        scores, seconds = _scores(method, queries, exclude_seen)
        return metrics.ranks(scores, start, relevant), metrics.top(scores, k), seconds

    ranks, shown, seconds = zip(*side_by_side(of, blocks), strict=True)
    return np.concatenate(ranks), np.concatenate(shown), sum(seconds)


def _scores(method: Method, queries: Queries, exclude_seen: bool) -> tuple[np.ndarray, float]:
    """Return what a method makes of some queries, with -inf for what may not be recommended, and the CPU seconds that took it."""
    started = thread_time()
    scores = method.scores(queries)
    seconds = thread_time() - started
    if scores.shape != (len(queries), queries.n_items):
        raise AssertionError(f"{method.name} gave scores of shape {scores.shape}, not {(len(queries), queries.n_items)}")
    metrics.bar(scores, queries.histories.pairs() if exclude_seen else None)
    return scores, seconds


def _sampled(plan: Plan, methods: Sequence[Method], matrix: bool | None) -> list[list[Block]]:
    """Return a fixed sample of every window's queries, or none where no matrix is wanted."""
    wanted = plan.behind - plan.first <= WINDOWS if matrix is None else matrix
    if not wanted or not any(isinstance(method, Released) for method in methods):
        return []
    return [list(questions.take(questions.sample(SAMPLED)).blocks()) for _, questions in plan.questions()]


def _recall(method: Method, blocks: Sequence[Block], exclude_seen: bool, k: int) -> float:
    def of(block: Block) -> np.ndarray:
        queries, start, relevant = block
        return metrics.recall(metrics.ranks(_scores(method, queries, exclude_seen)[0], start, relevant), start, k)

    return float(np.concatenate(list(side_by_side(of, blocks))).mean())
