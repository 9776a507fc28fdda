"""Back to the last good checkpoint, without the batches that led away from it."""

from __future__ import annotations

from functools import partial

from absl import logging

from model_trainer.errors import DivergedError
from model_trainer.training.checkpoints.broadcast import broadcast_checkpoint
from model_trainer.training.checkpoints.state import capture, restore, restore_callbacks
from model_trainer.training.checkpoints.store import Checkpoint, read_complete
from model_trainer.training.loop import EpochPosition, Loop
from model_trainer.training.resume import for_batch_size
from model_trainer.training.watch import Diverging

__all__ = ["go_back"]


def go_back(loop: Loop, found: Diverging) -> EpochPosition:
    """Puts the loop back to its last good checkpoint, and leaves the steps in `found` out from now on.

    Raises:
        DivergedError: it has gone back as often as is borne.
    """
    limits = loop.prepared.run.training.divergence
    if loop.rollbacks >= limits.rollbacks:
        raise DivergedError(_explained(loop, found))
    loop.saver.wait()
    good = _last_good(loop, min(found.steps)) if loop.process_group.is_chief else None
    checkpoint = broadcast_checkpoint(loop.process_group, good) or loop.beginning
    if checkpoint is None:
        raise DivergedError(_explained(loop, found))
    rollbacks, rate_cut, skipped = loop.rollbacks + 1, loop.rate_cut * limits.learning_rate_factor, set(loop.skipped)
    loop.folder.note_bad_steps([(step, loop.prepared.names_in_step(step)) for step in found.steps], "left out")
    best = loop.best.epochs
    place = restore(loop, checkpoint)
    _put_back_models(loop, best)
    restore_callbacks(loop, checkpoint)
    if not loop.prepared.run.training.schedule.moves:
        loop.phase.optimizer.learning_rate = (
            float(loop.phase.optimizer.learning_rate.numpy()) * rate_cut / loop.rate_cut
        )
    loop.rollbacks, loop.rate_cut, loop.skipped = rollbacks, rate_cut, skipped | set(found.steps)
    loop.watch.health.bad_steps = []
    loop.refresh_batches = None
    loop.num_drawn = 0  # they have abandoned epochs
    loop.write_history(with_curves=True)
    loop.logs.forget_after(place.epoch * loop.steps_per_epoch + place.position, place.epoch)
    logging.warning(
        "%s: training goes back to step %d of epoch %d, rollback %d of %d.%s %s left out from now on: %s",
        _capitalized(found.reason), place.position, place.epoch + 1, rollbacks, limits.rollbacks,
        f" The learning rate is {rate_cut:g} of what was declared." if rate_cut != 1 else "",
        _steps_text(loop, found) + (" are" if len(found.steps) > 1 else " is"), loop.prepared.names_text(found.steps),
    )  # fmt: skip
    loop.saver.save(partial(capture, loop, place))  # so that a killed run remembers it
    return place


def _put_back_models(loop: Loop, best: dict[str, int]) -> None:
    """Takes models of epochs that training went back from out of the folder, by those that were the best before.

    Args:
        best: by file, the epoch whose model it holds now.
    """
    for name, epoch in loop.best.epochs.items():
        if epoch != best[name] and not all(loop.process_group.all_gather(loop.folder.put_back(name, epoch))):
            loop.best.forget(name)  # the next epoch writes it anew


def _last_good(loop: Loop, step: int) -> Checkpoint | None:
    """The newest checkpoint from before `step` of the run, whose update may be what went wrong."""
    for whole in read_complete(loop.folder.path / "checkpoints"):
        # One from before the run was resumed may be counted in batches of another size.
        checkpoint = for_batch_size(whole, loop.prepared.run, len(loop.prepared.train))
        if (checkpoint.epoch, checkpoint.position) <= divmod(step, loop.steps_per_epoch):
            return checkpoint
    return None


def _explained(loop: Loop, found: Diverging) -> str:
    went_back = f" after it had gone back {loop.rollbacks} times" if loop.rollbacks else ""
    rate = loop.phase.learning_rate
    return (
        f"Training diverged{went_back}: {found.reason}.\n"
        f"{_steps_text(loop, found)}: {loop.prepared.names_text(found.steps)}.\n"
        "Go on from the last good checkpoint with a rate that is lowered wherever this happens: --resume "
        "--set training.divergence.learning_rate_factor=0.1\n"
        f"Or start anew with a lower rate, such as --set training.learning_rate={rate / 10:g}, or limited gradients, "
        "such as --set training.optimizer.clip_norm=1"
    )


def _steps_text(loop: Loop, found: Diverging) -> str:
    """Such as "Steps 3, 4, 5 of epoch 1"."""
    epochs: dict[int, list[str]] = {}
    for step in found.steps:
        epochs.setdefault(step // loop.steps_per_epoch + 1, []).append(str(step % loop.steps_per_epoch + 1))
    texts = [f"step{'s' * (len(of) > 1)} {', '.join(of)} of epoch {epoch}" for epoch, of in epochs.items()]
    return _capitalized(" and ".join(texts))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
