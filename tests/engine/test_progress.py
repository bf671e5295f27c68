"""Progress lines in the log and on a terminal."""

import io
import logging
import sys

from detectron2.utils.events import EventStorage

from atss.engine.progress import LogLine, TerminalLine


def train(writer, iterations, every=1):
    """Write made-up scalars of some iterations, and an evaluation after the 30th."""
    with EventStorage(0) as storage:
        for i in range(iterations):
            storage.iter = i
            storage.put_scalars(total_loss=3.0, loss_cls=1.0, loss_box=2.0, time=0.5, data_time=0.1, lr=0.01)
            if i == 29:
                storage.put_scalars(**{"bbox/AP": 12.34, "validation/total_loss": 9.0}, smoothing_hint=False)
            if (i + 1) % every == 0:
                writer.write()
        writer.write()
        writer.close()


def test_the_log_line_has_detectron2s_values_and_more(caplog):
    caplog.set_level(logging.INFO, logger="atss.engine.progress")
    train(LogLine(100, "bbox/AP", batch_size=16), 40, every=20)

    first, second = (record.message.split("  ") for record in caplog.records)
    assert first[:2] == [" eta: 0:00:40", "iter: 19"], "80 iterations of half a second are left"
    assert {"total_loss: 3", "loss_cls: 1", "loss_box: 2"} <= set(first)
    assert {"time: 0.5000", "data_time: 0.1000", "lr: 0.01"} <= set(first)
    assert "images/s: 32.0" in first and any(part.startswith("max_mem: ") for part in first)
    assert not any("AP" in part or "validation" in part for part in first)
    assert "AP: 12.3" in second


def test_only_known_values_are_shown():
    with EventStorage(0) as storage:
        storage.put_scalars(total_loss=3.0)

        assert set(LogLine(100, "bbox/AP", 16).describe()) == {"total_loss", "max_mem"}


def test_the_terminal_line_stays_in_the_same_place():
    terminal = io.StringIO()

    train(TerminalLine(40, "bbox/AP", 16, file=terminal), 40)

    *_, last = (line for line in terminal.getvalue().split("\r") if line.strip())
    assert "100% 40/40" in last and "left" in last
    shown = terminal.getvalue()
    assert "loss 3  cls 1  box 2" in shown and "images/s 32.0" in shown and "memory " in shown
    assert shown.count("\n") == 1, "one line, ended at the end"


def test_other_log_records_appear_above_the_terminal_line(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    logger = logging.getLogger("atss")
    console = logging.StreamHandler(terminal)
    monkeypatch.setattr(logger, "handlers", [console])
    line = TerminalLine(100, "bbox/AP", 16, file=terminal)
    with EventStorage(0) as storage:
        storage.put_scalars(total_loss=3.0, time=0.5)
        line.write()
        logger.warning("something else")
        logging.getLogger("atss.engine.progress").warning("a line for the log file")
        line.close()
    logger.warning("afterwards")

    lines = [text.split("\r")[-1].rstrip() for text in terminal.getvalue().split("\n")]
    assert "something else" in lines and "afterwards" in lines
    assert "a line for the log file" not in terminal.getvalue()
    assert console.filters == []
