"""What people and scripts send, checked: every wrong value becomes one sentence that names its field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from webapp.core.scenario import Scenario
from webapp.models import Backend
from webapp.services import backends
from webapp.services.runs import Ask

MAX_PROMPT_CHARS = 40_000
MAX_SYSTEM_CHARS = 10_000
MAX_OUTPUT_TOKENS = 32_768


class AskForm(forms.Form):
    """A comparison's prompt and settings, from the page or from a script; empty means the backend's own default."""

    prompt = forms.CharField(
        max_length=MAX_PROMPT_CHARS,
        error_messages={
            "required": "The prompt is empty; type something to ask.",
            "max_length": f"The prompt is too long: at most {MAX_PROMPT_CHARS:,} characters.",
        },
    )
    scenario = forms.CharField(required=False, max_length=40)
    system = forms.CharField(required=False, max_length=MAX_SYSTEM_CHARS)
    max_tokens = forms.IntegerField(required=False, min_value=1, max_value=MAX_OUTPUT_TOKENS)
    temperature = forms.FloatField(required=False, min_value=0, max_value=2)
    top_p = forms.FloatField(required=False, min_value=0, max_value=1)
    seed = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    full_length = forms.BooleanField(required=False)
    cold = forms.BooleanField(required=False)
    order = forms.ChoiceField(required=False, choices=[("parallel", "parallel"), ("sequential", "sequential")])

    def __init__(self, data: Mapping[str, Any], scenarios: Mapping[str, Scenario]) -> None:
        super().__init__({name: _scalar(value) for name, value in data.items()})
        self._scenarios = scenarios

    def clean_scenario(self) -> Scenario | None:
        slug = self.cleaned_data["scenario"]
        if slug and slug not in self._scenarios:
            raise forms.ValidationError("There is no such scenario.")
        return self._scenarios.get(slug)

    def ask(self) -> Ask:
        """Return what was asked; call `is_valid` first."""
        values = dict(self.cleaned_data)
        values["order"] = values["order"] or "parallel"
        return Ask(**values)

    def problem(self) -> str:
        """Return the first error as one sentence."""
        field, errors = next(iter(self.errors.items()))
        text = str(errors[0])
        return text if field in ("prompt", "__all__") else f"{field.replace('_', ' ')}: {text}"


class BackendForm(forms.ModelForm):  # type: ignore[type-arg]
    """A backend as an operator edits it."""

    class Meta:
        model = Backend
        fields = (
            "slug",
            "label",
            "kind",
            "base_url",
            "model",
            "model_family",
            "key_ref",
            "price_in_usd_per_mtok",
            "price_out_usd_per_mtok",
        )
        labels = {
            "slug": "Name",
            "label": "Label",
            "base_url": "Base URL",
            "model": "Model",
            "model_family": "Model family",
            "key_ref": "Key, by reference",
            "price_in_usd_per_mtok": "Price of input, USD per million tokens",
            "price_out_usd_per_mtok": "Price of output, USD per million tokens",
        }
        help_texts = {
            "slug": "Short name for scripts and URLs: letters, digits, dashes.",
            "label": "What the audience sees, such as “8×H100 · Llama 70B”.",
            "base_url": "Where the API begins, such as https://api.example.com/v1.",
            "model": "The model's name as the server knows it.",
            "model_family": "Lanes of one family may be compared without a warning, such as llama-3.3-70b.",
            "key_ref": "env:NAME or file:PATH. The key itself is never stored; changing the host clears this.",
        }
        error_messages = {"slug": {"unique": "There is already a backend with this name; choose another."}}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["base_url"].required = self.instance.badge != "SIMULATED"  # those may mean our own simulator

    def full_clean(self) -> None:
        super().full_clean()
        if "key_ref" in self.errors:  # mostly a key itself, pasted by mistake: not shown again
            self.data = {name: self.data[name] for name in self.data} | {self.add_prefix("key_ref"): ""}

    def clean_kind(self) -> str:
        return backends.check_kind(self.cleaned_data["kind"])

    def clean_base_url(self) -> str:
        url: str = self.cleaned_data["base_url"]
        return backends.check_url(url) if url else url

    def clean_key_ref(self) -> str:
        return backends.check_key(self.cleaned_data["key_ref"])


def _scalar(value: Any) -> Any:
    """Return a field's one value; an object or an empty list has none."""
    one = value[-1] if isinstance(value, list) and value else value
    return one if isinstance(one, str | int | float) else None
