"""The acts of the web: which functions of the engine its views for POST requests call."""

import ast
import inspect
import re
from pathlib import Path

import webapp
from tests.proof.isolation import account_rules, act_rules, membership_rules

# Reads; a result of another tenant would be a defect of the page, which tests/webapp/test_route_access.py covers.
_READ_PREFIXES = ("find", "forecast_", "get_", "list_", "suggest_")
# Acts with which a person becomes a tenant, or that belong to the service.
_LINKING = "decides which owner signs in: tests/webapp/test_identity_linking.py"
EXEMPT = {
    "bus.auth.identities.link_identity": _LINKING,
    "bus.auth.identities.set_email_from_identity": _LINKING,
    "bus.auth.identities.unlink_identity": _LINKING,
    "bus.auth.login_links.consume_login_link": "decides which owner signs in: tests/webapp/test_sessions.py",
    "bus.notifications.mail_addresses.confirm": "by a signed link: tests/webapp/test_email_links.py",
    "bus.notifications.mail_addresses.unsubscribe": "by a signed link: tests/webapp/test_email_links.py",
    "bus.tenancy.client_grants.disconnect": "by owner and id: tests/bus/tenancy/test_client_grants.py",
    "bus.tenancy.device_authorizations.decide": "by the code of the client: tests/webapp/test_device_authorization.py",
    "bus.tenancy.device_authorizations.lock_by_user_code": "by the code of the client, as decide",
    "bus.tenancy.oauth_clients.register": "belongs to no tenant: tests/webapp/test_oauth_metadata.py",
    "bus.tenancy.owners.rename": "handles are public and of the whole service: tests/bus/tenancy/test_owner_handles.py",
    "bus.operations.process_registry.has_mail_server": "reads the processes of the service",
    "bus.operations.jobs.request_run": "of the service: tests/bus/operations/test_jobs.py",
    "bus.operations.project_purge.purge_step": "a step of begin_purge",
    "bus.coordination.leases.fold_live_leases": "a step of set_settings",
    "bus.coordination.surfacing.mark_surfaced": "a page shows posts: tests/webapp/test_reading.py",
}


def list_acts() -> set[str]:
    """Return the engine's functions that views for POST requests call, without reads."""
    acts: set[str] = set()
    for path in Path(webapp.__file__).parent.joinpath("pages").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        modules = _find_engine_imports(tree)
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for function in functions.values():
            if _accepts_post(function):
                acts |= _find_engine_calls(function, functions, modules, set())
    return {act for act in acts if not act.rpartition(".")[2].startswith(_READ_PREFIXES)}


def list_acts_with_rules() -> set[str]:
    """Return the names of the acts that the rules report, such as `projects.add`."""
    constants = (
        node.value
        for module in (act_rules, account_rules, membership_rules)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in constants if re.fullmatch(r"[a-z_]+\.[a-z_]+", text)}


def _find_engine_imports(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bus.")
        for alias in node.names
    }


def _accepts_post(function: ast.FunctionDef) -> bool:
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(".post(" in text or ".action(" in text or "'POST'" in text for text in decorators)


def _find_engine_calls(
    function: ast.FunctionDef, functions: dict[str, ast.FunctionDef], modules: dict[str, str], seen: set[str]
) -> set[str]:
    """Return the calls with a connection in a function and in the functions of its file that it calls."""
    seen.add(function.name)
    calls: set[str] = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        root, _, rest = name.partition(".")
        if root in modules and node.args and ast.unparse(node.args[0]) == "conn":
            calls.add(f"{modules[root]}.{rest}" if rest else modules[root])
        elif name in functions and name not in seen:
            calls |= _find_engine_calls(functions[name], functions, modules, seen)
    return calls
