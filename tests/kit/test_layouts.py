"""The folders of real tools for decisions and migrations: no false alarm and no wrong proposal.

The layouts are those of the tools' documentation and generators.
"""

import json
from dataclasses import dataclass

import pytest

from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess


@dataclass(frozen=True)
class Layout:
    """The files of a tool.

    Attributes:
        tool: its name.
        names: the files of one record or migration, with `{id}` and `{title}`.
        ids: the versions in order; the last three are new.
        others: files beside them.
        sequences: what the installer suggests; empty for a folder that no sequence numbers.
        repeats: the tool whose files the same rule decides; only `make test-all` runs both.
    """

    tool: str
    names: tuple[str, ...]
    ids: tuple[str, ...]
    others: tuple[str, ...] = ()
    sequences: tuple[tuple[str, str], ...] = ()
    repeats: str = ""

    def list_files(self, index: int) -> list[str]:
        title = ("users", "orders", "prices", "invoices", "payments", "refunds")[index]
        return [name.format(id=self.ids[index], title=title) for name in self.names]


def number(width: int = 0, first: int = 1) -> tuple[str, ...]:
    return tuple(f"{value:0{width}}" for value in range(first, first + 6))


SECONDS = tuple(f"2024010{day}12000{day}" for day in range(1, 7))
MILLISECONDS = tuple(f"170000000{digit}000" for digit in range(6))
UNIX = tuple(f"170000000{digit}" for digit in range(6))
HASHES = ("1975ea83b712", "ae1027a6acf4", "27c6a30d7c24", "197583712345", "e3b0c44298fc", "0d1e2f3a4b5c")
DATES = tuple(f"2024010{day}" for day in range(1, 7))
LARAVEL = ("0001_01_01_000000", "0001_01_01_000001", *(f"2024_01_0{day}_120000" for day in range(1, 5)))

LAYOUTS = [
    Layout("adr-tools", ("doc/adr/{id}-{title}.md",), number(4), (), (("doc/adr/*.md", "adr"),)),
    Layout(
        "adr-tools, long path",
        ("docs/architecture/decisions/{id}-{title}.md",),
        number(4),
        ("docs/architecture/README.md",),
        (("docs/architecture/decisions/*.md", "adr"),),
    ),
    Layout(
        "MADR",
        ("docs/decisions/{id}-{title}.md",),
        number(4, 0),
        ("docs/decisions/adr-template.md", "docs/decisions/index.md", "docs/decisions/README.md"),
        (("docs/decisions/*.md", "adr"),),
    ),
    Layout("log4brains", ("docs/adr/{id}-{title}.md",), DATES, ("docs/adr/template.md", "docs/adr/index.md")),
    Layout("ADR-NNN", ("docs/adr/ADR-{id}-{title}.md",), number(3), (), (("docs/adr/*.md", "adr"),)),
    Layout("ADR NNNN", ("adr/ADR {id} {title}.md",), number(4, 98), (), (("adr/*.md", "adr"),)),
    Layout("dated decisions", ("docs/decisions/{id}-{title}.md",), tuple(f"2024-01-0{day}" for day in range(1, 7))),
    Layout("decisions of a year", ("docs/adr/2024-{id}-{title}.md",), number(3, 9), repeats="dated decisions"),
    Layout("Rust RFCs", ("rfcs/{id}-{title}.md",), number(4, 2), ("rfcs/0000-template.md",), (("rfcs/*.md", "rfc"),)),
    Layout("Python PEPs", ("peps/pep-{id}.rst",), number(4), ("peps/conf.py",)),
    Layout(
        "Django, one application",
        ("blog/migrations/{id}_{title}.py",),
        number(4),
        ("blog/migrations/__init__.py", "blog/models.py"),
        (("blog/migrations/*.py", "migration"),),
    ),
    Layout(
        "Django, two applications",
        ("blog/migrations/{id}_{title}.py", "shop/migrations/{id}_{title}.py"),
        number(4),
        ("blog/migrations/__init__.py", "shop/migrations/__init__.py"),
        (("blog/migrations/*.py", "blog-migration"), ("shop/migrations/*.py", "shop-migration")),
    ),
    Layout("Rails", ("db/migrate/{id}_create_{title}.rb",), SECONDS, ("db/schema.rb", "db/seeds.rb")),
    Layout(
        "Flyway",
        ("src/main/resources/db/migration/V{id}__{title}.sql",),
        number(0, 8),
        ("src/main/resources/db/migration/R__views.sql", "src/main/resources/db/migration/B8__baseline.sql"),
        (("src/main/resources/db/migration/*.sql", "migration"),),
    ),
    Layout(
        "Flyway with undo",
        ("migrations/V{id}__{title}.sql", "migrations/U{id}__{title}.sql"),
        number(3),
        (),
        (("migrations/*.sql", "migration"),),
    ),
    Layout("Flyway, dotted", ("migrations/V1.{id}__{title}.sql",), number()),
    Layout("Flyway, underscores", ("migrations/V1_{id}__{title}.sql",), number()),
    Layout("Flyway, timestamps", ("migrations/V{id}__{title}.sql",), SECONDS),
    Layout(
        "goose, sequential",
        ("db/migrations/{id}_{title}.sql",),
        number(5),
        (),
        (("db/migrations/*.sql", "migration"),),
        repeats="adr-tools",
    ),
    Layout("goose", ("migrations/{id}_{title}.sql",), SECONDS, repeats="Rails"),
    Layout("dbmate", ("db/migrations/{id}_{title}.sql",), SECONDS, ("db/schema.sql",), repeats="Rails"),
    Layout(
        "golang-migrate, sequential",
        ("migrations/{id}_{title}.up.sql", "migrations/{id}_{title}.down.sql"),
        number(6),
        (),
        (("migrations/*.sql", "migration"),),
    ),
    Layout("golang-migrate", ("migrations/{id}_{title}.up.sql", "migrations/{id}_{title}.down.sql"), UNIX),
    Layout("alembic", ("alembic/versions/{id}_{title}.py",), HASHES, ("alembic/env.py", "alembic/script.py.mako")),
    Layout("alembic in migrations", ("migrations/{id}_{title}.py",), HASHES, repeats="alembic"),
    Layout(
        "Prisma",
        ("prisma/migrations/{id}_{title}/migration.sql",),
        SECONDS,
        ("prisma/migrations/migration_lock.toml", "prisma/schema.prisma"),
    ),
    Layout("Knex", ("migrations/{id}_{title}.js",), SECONDS, ("knexfile.js",), repeats="Rails"),
    Layout("Sequelize", ("migrations/{id}-create-{title}.js",), SECONDS, ("models/index.js",), repeats="Rails"),
    Layout("TypeORM", ("src/migrations/{id}-{title}.ts",), MILLISECONDS),
    Layout("MikroORM", ("migrations/Migration{id}_{title}.ts",), SECONDS, ("migrations/.snapshot-app.json",)),
    Layout(
        "Drizzle",
        ("drizzle/{id}_{title}.sql", "drizzle/meta/{id}_snapshot.json"),
        number(4, 0),
        ("drizzle/meta/_journal.json",),
    ),
    Layout(
        "Liquibase",
        ("src/main/resources/db/changelog/db.changelog-1.{id}.xml",),
        number(),
        ("src/main/resources/db/changelog/db.changelog-master.xml",),
    ),
    Layout("Laravel", ("database/migrations/{id}_create_{title}_table.php",), LARAVEL),
    Layout(
        "Ecto",
        ("priv/repo/migrations/{id}_create_{title}.exs",),
        SECONDS,
        ("priv/repo/migrations/.formatter.exs",),
        repeats="Rails",
    ),
    Layout(
        "EF Core",
        ("Migrations/{id}_{title}.cs", "Migrations/{id}_{title}.Designer.cs"),
        SECONDS,
        ("Migrations/AppDbContextModelSnapshot.cs",),
    ),
    Layout(
        "Diesel",
        ("migrations/{id}_create_{title}/up.sql", "migrations/{id}_create_{title}/down.sql"),
        tuple(f"2024-01-0{day}-12000{day}" for day in range(1, 7)),
        ("migrations/00000000000000_diesel_initial_setup/up.sql", "diesel.toml"),
    ),
    Layout("sqlx", ("migrations/{id}_{title}.sql",), SECONDS, repeats="Rails"),
    Layout(
        "sqlx, sequential",
        ("migrations/{id}_{title}.sql",),
        number(4),
        (),
        (("migrations/*.sql", "migration"),),
        repeats="adr-tools",
    ),
    Layout(
        "refinery",
        ("migrations/V{id}__{title}.rs",),
        number(),
        ("migrations/mod.rs",),
        (("migrations/*.rs", "migration"),),
        repeats="Flyway",
    ),
    Layout("Phinx", ("db/migrations/{id}_{title}.php",), SECONDS, ("phinx.php",), repeats="Rails"),
    Layout("Doctrine", ("migrations/Version{id}.php",), SECONDS),
    Layout("Supabase", ("supabase/migrations/{id}_{title}.sql",), SECONDS, ("supabase/config.toml",), repeats="Rails"),
    Layout("Yii", ("migrations/m24010{id}_120000_{title}.php",), number()),
    Layout("db-migrate", ("migrations/{id}-{title}.js", "migrations/sqls/{id}-{title}-up.sql"), SECONDS),
    Layout("node-pg-migrate", ("migrations/{id}_{title}.js",), MILLISECONDS, repeats="TypeORM"),
    Layout("Hasura", ("migrations/default/{id}_{title}/up.sql",), MILLISECONDS, ("metadata/version.yaml",)),
    Layout("Sqitch", ("deploy/{title}.sql", "revert/{title}.sql", "verify/{title}.sql"), number(), ("sqitch.plan",)),
    Layout(
        "Postgrator",
        ("migrations/{id}.do.{title}.sql", "migrations/{id}.undo.{title}.sql"),
        number(3),
        (),
        (("migrations/*.sql", "migration"),),
        repeats="golang-migrate, sequential",
    ),
    Layout(
        "D1", ("migrations/{id}_{title}.sql",), number(4), (), (("migrations/*.sql", "migration"),), repeats="adr-tools"
    ),
]


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout, id=layout.tool, marks=[pytest.mark.exhaustive] if layout.repeats else [])
        for layout in LAYOUTS
    ],
)
def test_a_real_layout_is_governed_only_if_it_is_a_sequence(
    plain: GitRepo, gateway: GatewayProcess, team: Team, bob: McpClient, layout: Layout
) -> None:
    plain.git("rm", "-q", "-r", "docs")
    plain.add(*layout.others, *[name for index in range(3) for name in layout.list_files(index)])
    assert plain.commit("history").returncode == 0
    before = plain.snapshot()
    plain.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    installed = plain.install(gateway.url, "--client", "none")
    config_path = plain.root / "llm-bus.config.json"
    assert json.loads(config_path.read_text("utf-8"))["sequences"] == dict(layout.sequences)
    for _, sequence in layout.sequences:
        assert f"Seeded the sequence {sequence} with {int(layout.ids[2])}" in installed.stdout
    # The next number of each sequence is free, and is claimed.
    plain.git("add", "-A")
    plain.add(*layout.list_files(3))
    done = plain.commit("next")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == len(layout.sequences), done.stderr
    assert all("was free and is now claimed for you" in line for line in lines), done.stderr
    # Bob's next one comes with a squash merge.
    plain.git("checkout", "-q", "-b", "theirs")
    for _, sequence in layout.sequences:
        assert bob.call("claim", sequence=sequence).structured_content["number"] == int(layout.ids[4])
    plain.add(*layout.list_files(4))
    plain.git("commit", "-q", "--no-verify", "-m", "theirs")
    plain.git("checkout", "-q", "main")
    plain.git("merge", "-q", "--squash", "theirs")
    done = plain.commit("squashed")
    assert (done.returncode, done.stderr) == (0, "")
    # A rule that covers everything proposes nothing wrong either.
    plain.update_config(sequences={"**": "everything"})
    plain.add(*layout.list_files(5))
    done = plain.commit("governed by a wide rule")
    assert done.returncode == 0
    assert "git mv" not in done.stderr
    is_sequence = bool(layout.sequences) or layout.tool in ("Python PEPs", "Drizzle")
    assert bool(done.stderr) is is_sequence, done.stderr
    config_path.unlink()
    plain.git("checkout", "-q", "HEAD", "--", ".")
    plain.install(gateway.url, "--uninstall")
    after = plain.snapshot()
    assert {path: after[path] for path in before} == before
