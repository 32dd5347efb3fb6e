"""`make clients`: install the real clients, drive each through scripted sessions, and print the matrix.

Exit code 1 if a client no longer does what docs/reference/clients.md says, or fails a check without a known reason.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.clients import checks
from tests.clients.bench import ClientBench
from tests.clients.bus import Bus, running_bus
from tests.clients.drivers import DRIVERS
from tests.clients.drivers.driver import Driver
from tests.clients.install import installed_programs
from tests.clients.matrix import PAGE, Cell, Matrix, read_page, update_page
from tests.clients.stub_model.server import StubModel, running_stub


def main() -> int:
    """Run the clients and return the exit code."""
    options = _parse_arguments()
    drivers = [driver for driver in DRIVERS if options.client in (None, driver.name)]
    matrix = Matrix([])
    failures = []
    with installed_programs() as programs, running_bus() as bus, running_stub() as stub:
        for driver in drivers:
            program = driver.find_program(programs)
            if program is None:
                print(f"{driver.title} is left out: npm/package.json has no package of it for this platform.")
                continue
            print(f"{driver.title} …", flush=True)
            try:
                cells = _run(driver, program, bus, stub, options.keep)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(f"{driver.title}: {error}")
                continue
            matrix.clients.append(driver.title)
            for row, cell in cells.items():
                matrix.set(row, driver.title, cell)
            failures += [f"{driver.title}: {row}" for row in checks.find_unexplained(cells)]
    print(f"\n{matrix.format()}")
    page = PAGE.read_text("utf-8")
    if options.write and len(matrix.clients) == len(DRIVERS) and not failures:
        page = update_page(page, matrix)
        PAGE.write_text(page, "utf-8")
    else:
        failures += matrix.find_losses(read_page(page))
    for difference in matrix.find_differences(read_page(page)):
        print(f"differs from docs/reference/clients.md: {difference}")
    for failure in dict.fromkeys(failures):
        print(f"FAILED  {failure}; --keep FOLDER keeps the requests and outputs")
    return 1 if failures else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make clients", description=__doc__)
    parser.add_argument("--client", choices=[driver.name for driver in DRIVERS], help="run this client only")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep repositories, requests and outputs here")
    parser.add_argument("--write", action="store_true", help="write the matrix into docs/reference/clients.md")
    options = parser.parse_args()
    if options.write and options.client:
        parser.error("--write needs all clients")
    return options


def _run(driver: Driver, program: list[str], bus: Bus, stub: StubModel, keep: Path | None) -> dict[str, Cell]:
    with _working_folder(driver, keep) as folder, (folder / "log.txt").open("w", encoding="utf-8") as log:
        return checks.evaluate_all(driver, ClientBench(driver, program, bus, stub, folder, log.write).run())


@contextmanager
def _working_folder(driver: Driver, keep: Path | None) -> Iterator[Path]:
    if keep is None:
        # Clients leave processes that may still write into their home folder.
        with TemporaryDirectory(prefix=f"{driver.name}-", ignore_cleanup_errors=True) as temporary_folder:
            yield Path(temporary_folder)
    else:
        folder = (keep / driver.name).absolute()
        folder.mkdir(parents=True)
        yield folder


if __name__ == "__main__":
    sys.exit(main())
