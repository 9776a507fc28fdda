"""Rolls training back to the last good checkpoint, and skips the batches after which it diverged."""

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

__all__ = ["roll_back"]


def roll_back(loop: Loop, diverging: Diverging) -> EpochPosition:
    """Restores the last good checkpoint, and skips the steps in `diverging` from now on.

    Returns:
        The position from which training continues.

    Raises:
        DivergedError: training has already been rolled back as often as is allowed.
    """
    limits = loop.prepared.run.training.divergence
    if loop.rollbacks >= limits.rollbacks:
        raise DivergedError(_divergence_message(loop, diverging))
    loop.saver.wait()
    last_good = _last_good(loop, min(diverging.steps)) if loop.process_group.is_chief else None
    checkpoint = broadcast_checkpoint(loop.process_group, last_good) or loop.initial_checkpoint
    if checkpoint is None:
        raise DivergedError(_divergence_message(loop, diverging))
    rollbacks, rate_cut, skipped = loop.rollbacks + 1, loop.rate_cut * limits.learning_rate_factor, set(loop.skipped)
    loop.folder.note_bad_steps([(step, loop.prepared.names_in_step(step)) for step in diverging.steps], "left out")
    best_epochs = loop.best.epochs
    position = restore(loop, checkpoint)
    _restore_best_models(loop, best_epochs)
    restore_callbacks(loop, checkpoint)
    if not loop.prepared.run.training.schedule.moves:
        loop.phase.optimizer.learning_rate = (
            float(loop.phase.optimizer.learning_rate.numpy()) * rate_cut / loop.rate_cut
        )
    loop.rollbacks, loop.rate_cut, loop.skipped = rollbacks, rate_cut, skipped | set(diverging.steps)
    loop.watch.health.bad_steps = []
    loop.refresh_batches = None
    loop.num_drawn = 0  # the curves show abandoned epochs
    loop.write_history(with_curves=True)
    loop.logs.truncate(position.epoch * loop.steps_per_epoch + position.position, position.epoch)
    logging.warning(
        "%s: training rolls back to step %d of epoch %d, rollback %d of %d.%s %s skipped from now on: %s",
        _capitalized(diverging.reason), position.position, position.epoch + 1, rollbacks, limits.rollbacks,
        f" The learning rate is {rate_cut:g} times the declared one." if rate_cut != 1 else "",
        _steps_text(loop, diverging) + (" are" if len(diverging.steps) > 1 else " is"),
        loop.prepared.names_text(diverging.steps),
    )  # fmt: skip
    loop.saver.save(partial(capture, loop, position))  # so that the rollback outlasts a killed process
    return position


def _restore_best_models(loop: Loop, best_epochs: dict[str, int]) -> None:
    """Replaces the best models of abandoned epochs with those that were the best before.

    Args:
        best_epochs: the epoch of the model in each file now.
    """
    for name, epoch in loop.best.epochs.items():
        if epoch != best_epochs[name] and not all(loop.process_group.all_gather(loop.folder.restore_best(name, epoch))):
            loop.best.forget(name)  # the next epoch writes a new one


def _last_good(loop: Loop, step: int) -> Checkpoint | None:
    """The newest checkpoint from before a step of the run, whose update may have caused the divergence."""
    for stored in read_complete(loop.folder.path / "checkpoints"):
        # A checkpoint from before the run was resumed may have been counted in batches of another size.
        checkpoint = for_batch_size(stored, loop.prepared.run, len(loop.prepared.train))
        if (checkpoint.epoch, checkpoint.position) <= divmod(step, loop.steps_per_epoch):
            return checkpoint
    return None


def _divergence_message(loop: Loop, diverging: Diverging) -> str:
    rollbacks = f" after {loop.rollbacks} rollbacks" if loop.rollbacks else ""
    learning_rate = loop.phase.learning_rate
    return (
        f"Training diverged{rollbacks}: {diverging.reason}.\n"
        f"{_steps_text(loop, diverging)}: {loop.prepared.names_text(diverging.steps)}.\n"
        "Continue from the last good checkpoint with a learning rate that each rollback lowers: --resume "
        "--set training.divergence.learning_rate_factor=0.1\n"
        f"Or start a new run with a lower rate, such as --set training.learning_rate={learning_rate / 10:g}, or with "
        "gradient clipping, such as --set training.optimizer.clip_norm=1"
    )


def _steps_text(loop: Loop, diverging: Diverging) -> str:
    """Such as "Steps 3, 4, 5 of epoch 1"."""
    epochs: dict[int, list[str]] = {}
    for step in diverging.steps:
        epochs.setdefault(step // loop.steps_per_epoch + 1, []).append(str(step % loop.steps_per_epoch + 1))
    phrases = [f"step{'s' * (len(steps) > 1)} {', '.join(steps)} of epoch {epoch}" for epoch, steps in epochs.items()]
    return _capitalized(" and ".join(phrases))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
