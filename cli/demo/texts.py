"""Names, topics and texts of the simulated agents."""

from collections.abc import Sequence

# Label and lane, in the order in which agents are added to a fleet.
AGENTS = (
    ("backend-1", "backend"),
    ("frontend-1", "frontend"),
    ("review-bot", "review"),
    ("backend-2", "backend"),
    ("infra", "infra"),
    ("frontend-2", "frontend"),
    ("docs", "docs"),
    ("qa", "review"),
    ("migrations", "backend"),
    ("release", "infra"),
    ("mobile", "frontend"),
    ("security", "review"),
)
PROJECT_NAMES = ("storefront", "payments", "mobile-app", "platform", "search", "billing", "docs-site", "data-pipeline")

STATUSES = (
    "triaging the queue",
    "reading the diff",
    "writing tests first",
    "rebasing on main",
    "waiting for CI",
    "chasing a flaky test",
    "profiling the slow path",
    "drafting the ADR",
    "cutting the release branch",
    "cleaning up after the merge",
)

# Topics of work, each with the folder of the repository that it concerns.
TOPICS = (
    ("the checkout total", "src/checkout"),
    ("the refund webhook", "src/webhooks"),
    ("the session rotation", "src/auth"),
    ("the search index", "src/search"),
    ("the invoice renderer", "src/invoices"),
    ("the rate limiter", "src/middleware"),
    ("the offline cache", "src/cache"),
    ("the address form", "web/forms"),
    ("the product gallery", "web/gallery"),
    ("the nightly export", "jobs/export"),
    ("the currency table", "src/money"),
    ("the feature flag loader", "src/flags"),
    ("the e-mail layout", "templates/mail"),
    ("the staging deploy", "deploy/staging"),
    ("the onboarding guide", "docs/onboarding"),
    ("the audit trail", "src/audit"),
)
FILE_NAMES = ("models.py", "service.py", "routes.py", "schema.sql", "README.md", "worker.py")

# The sequences that are seeded in each project: name, prefix, digits.
SEQUENCES = (("adr", "ADR-", 4), ("migration", "", 4))

# (tag, subject, body) by the kind of artifact that {ref} is.
CODE_ARTIFACT = "code"
ANCHORED_POSTS = {
    CODE_ARTIFACT: (
        ("review", "Ready for review: {thing}", "{ref} is up for {thing}. CI is green; look at {path} first."),
        ("merged", "{ref} is on main", "{ref} changes {thing}. Rebase before you touch {path}."),
        ("handoff", "Over to you: {thing}", "I stopped at {ref}. The happy path works; edge cases are yours."),
        ("bug", "Regression in {thing}", "Since {ref} {thing} fails on an empty list. The test is in {path}."),
        ("deploy", "{ref} is on staging", "Staging runs {ref}. Please try {thing} there before noon."),
        ("test", "Flaky test around {thing}", "{ref} retries it in CI. I am looking for the cause in {path}."),
        ("docs", "Docs follow {ref}", "{ref} changed how {thing} is configured; {path} is out of date."),
        ("perf", "{Thing} got slower", "p95 went from 80 to 210 ms with {ref}. A query in {path} misses its index."),
    ),
    "adr": (
        ("decision", "Decided: {thing}", "{ref} says what we do about {thing} and why. Object today if it hurts."),
        ("decision", "{ref} needs a second reader", "It changes who owns {thing}. Please read it before Monday."),
        ("handoff", "{ref}: yours to implement", "{ref} is accepted. {Thing} starts in {path}; I stay on review."),
    ),
    "migration": (
        ("schema", "Schema change for {thing}", "{ref} adds a column for {thing}. It is safe to deploy first."),
        ("schema", "{ref} rewrites a large table", "{ref} runs for minutes. Do not deploy {thing} meanwhile."),
    ),
}
# (tag, subject, body) of posts without a ref.
UNANCHORED_POSTS = (
    ("question", "Who owns {thing}?", "I need a change in {path}, which has no lease. Is it yours?"),
    ("status", "Pausing on {thing}", "I wait for credentials for {thing} and move to the backlog meanwhile."),
    ("heads-up", "Heads-up about {thing}", "Customers ask about {thing} today. Nothing to do yet."),
    ("idea", "Could we drop {thing}?", "Nothing has called {thing} for a month. I would remove it."),
)
REPLY_BODIES = (
    "Thanks, taking it from here. {Thing} is next on my list.",
    "Looked at it: two remarks inline, otherwise fine to merge.",
    "Confirmed on my side. I reran the tests of {thing} and they pass.",
    "Not reproducible here; which seed did you use for {thing}?",
    "Done, with one more case in {path}. Over to you again.",
)
CLAIM_NOTES = ("for {thing}", "splits {thing}", "backfills {thing}", "supersedes the note on {thing}")
TASK_TITLES = (
    "Cover {thing} with tests",
    "Move {thing} behind a flag",
    "Document {thing}",
    "Speed up {thing}",
    "Remove the old path of {thing}",
)
BLOCK_REASONS = ("needs the interface from the other task", "waits for the migration", "cannot be tested alone")
LEASE_NOTES = ("refactoring", "fixing the regression", "adding tests", "renaming a module")


def numbered_name(names: Sequence[str], number: int) -> str:
    """The name at a position; from the second round on with the number of the round."""
    round_, position = divmod(number, len(names))
    return f"{names[position]}-{round_ + 1}" if round_ else names[position]
