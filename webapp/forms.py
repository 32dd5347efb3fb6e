"""Form fields that several pages share."""

from typing import Any

from wtforms import Field, SelectChoice, SelectField, StringField
from wtforms.validators import Length, Optional, StopValidation

from bus.rules.enums import PARTICIPANT_KINDS
from bus.scopes import FULL_SCOPE, SCOPES, Scope, includes

ADMIN_DESCRIPTION = "Can add participants, rotate tokens and change anyone's tasks."


def optional_text_field(label: str, max_length: int, *, description: str = "", **options: Any) -> StringField:
    """A text field that may stay empty; its data is None then."""
    return StringField(
        label,
        filters=[_strip_or_none],
        validators=[Optional(), Length(max=max_length)],
        description=description,
        **options,
    )


def required_text_field(label: str, max_length: int, *, description: str = "") -> StringField:
    """A text field that must not be empty; the engine validates its content."""
    validators = [RequiredText(label), Length(max=max_length)]
    return StringField(label, filters=[_strip_or_none], validators=validators, description=description)


def kind_field() -> SelectField:
    """A select between the kinds of participants."""
    return SelectField("Kind", choices=select_choices(*((kind, kind) for kind in PARTICIPANT_KINDS)), default="agent")


def token_lifetime_field(label: str) -> SelectField:
    """A select for the lifetime of a token in days; empty means that it never expires."""
    days = select_choices(("", "never"), ("1", "1 day"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days"))
    return SelectField(label, choices=days, default="")


SCOPE_LABELS: dict[Scope, str] = {
    "read": "read only",
    "write": "read and write",
    "admin": "everything that its role allows",
}


def scope_field(default: Scope = FULL_SCOPE) -> SelectField:
    """A select for what a token allows."""
    return SelectField("Rights", choices=scope_choices(FULL_SCOPE), default=default)


def scope_choices(limit: Scope) -> list[SelectChoice]:
    """The scopes up to `limit`."""
    return select_choices(*((scope, SCOPE_LABELS[scope]) for scope in SCOPES if includes(limit, scope)))


def select_choices(*pairs: tuple[str, str]) -> list[SelectChoice]:
    """The choices of a select, from pairs of value and label."""
    return [SelectChoice(value, label) for value, label in pairs]


class RequiredText:
    """Refuse an empty field with a message that names its label."""

    field_flags = {"required": True}  # noqa: RUF012 (WTForms reads it from the class)

    def __init__(self, label: str) -> None:
        self._label = label

    def __call__(self, _form: Any, field: Field) -> None:
        """Refuse an empty field."""
        if not field.data:
            raise StopValidation(f"{self._label} is required.")


def _strip_or_none(value: str | None) -> str | None:
    return (value or "").strip() or None
