"""Progress bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._model import Progress


def tqdm_progress(description: str | None = None, **options: Any) -> Progress:
    """A progress callback that shows a bar with tqdm, which must be installed: ``progress=modelseal.tqdm_progress()``.

    ``options`` are tqdm's own.
    """
    from tqdm.auto import tqdm

    defaults: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "desc": description}
    bar: Any = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, **{**defaults, **options})
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            bar = None

    return progress
