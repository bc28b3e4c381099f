"""Whether a resource is valid R4 or R4B, and where it is not: the path of the fault, never the value.

Belongs here: structure, cardinality, primitive types and required codes, by the models of `fhir.resources` (R4B) and
two rules that they leave out. Does not belong here: terminology beyond required codes, profiles, how files are read.

R4 and R4B differ in resources for medicinal products, evidence and subscriptions alone; types that only R4 has are let
in by their name, since no model of theirs is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import BaseModel, ValidationError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


R4_ONLY = _words(
    """EffectEvidenceSynthesis MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication
    MedicinalProductIndication MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
    MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect RiskEvidenceSynthesis
    SubstanceNucleicAcid SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
    SubstanceSpecification"""
)
"""Resource types of R4 (4.0.1) that R4B (4.3.0) does not have."""

REQUIRED_CODES: dict[tuple[str, str], frozenset[str]] = {
    ("DiagnosticReport", "status"): _words(
        "registered partial preliminary final amended corrected appended cancelled entered-in-error unknown"
    ),
    ("Observation", "status"): _words(
        "registered preliminary final amended corrected cancelled entered-in-error unknown"
    ),
    ("Encounter", "status"): _words(
        "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown"
    ),
}
"""Required codes (FHIR R4B, bindings of strength `required`) of elements whose short form in the models ends in `+`."""

_WORDS = {
    "missing": "missing",
    "model_field_validation.missing": "missing",
    "extra_forbidden": "no element of this type",
    "list_type": "must be an array",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "json_invalid": "must be an object",
    "string_pattern_mismatch": "not in the form of its type",
    "value_error": "not in the form of its type",
}
_ELEMENT = re.compile(r"^_?[a-z][A-Za-z0-9]{0,63}$")
_TYPE = re.compile(r"^[A-Z][A-Za-z]{0,63}$")


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing wrong with a resource.

    path: where, such as `Patient.name[0].use`; a key that cannot be an element's name is written as `?`. rule: what
    is asked for, in words without a value.
    """

    path: str
    rule: str

    def __str__(self) -> str:
        """Path and rule, as they stand in ingestion_errors."""
        return f"{self.path}: {self.rule}"


def fault_of(resource: Mapping[str, Any]) -> Fault | None:
    """The first fault of a parsed resource, None when it is valid."""
    name = resource.get("resourceType")
    if not isinstance(name, str) or not _TYPE.match(name):
        return Fault("resourceType", "missing" if name is None else "not the name of a resource type")
    model = _model(name)
    if model is None:
        return None if name in R4_ONLY else Fault("resourceType", "not a resource type of R4 or R4B")
    try:
        parsed = model.model_validate(resource)
    except ValidationError as error:
        return _first(name, error)
    except (KeyError, LookupError, TypeError, ValueError, AttributeError):
        return Fault(name, "holds something that is no FHIR, such as a resource of an unknown type")
    except RecursionError:
        return Fault(name, "nested too deep")
    return next(_walk(parsed, name), None)


@cache
def _model(name: str) -> type[BaseModel] | None:
    if name.lower() not in _modules():
        return None
    model = getattr(import_module(f"fhir.resources.R4B.{name.lower()}"), name, None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    bases = {base.__name__ for base in model.__mro__}
    return model if "Resource" in bases and name not in ("Resource", "DomainResource") else None


@cache
def _modules() -> frozenset[str]:
    package = import_module("fhir.resources.R4B")
    return frozenset(module.name for module in iter_modules(package.__path__))


def _first(name: str, error: ValidationError) -> Fault:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = found["loc"]
    if not place and found["type"] == "value_error":
        return Fault(name, "of a choice of elements, none or more than one is there")
    kind = found["type"]
    return Fault(_path(name, place), _WORDS.get(kind, kind.replace("_", " ")))


def _path(name: str, place: Sequence[int | str]) -> str:
    path = name
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if _ELEMENT.match(step) else ".?"
    return path


@cache
def _codes(model: type[BaseModel]) -> dict[str, frozenset[str]]:
    """Elements of a model that hold a code out of a closed list, with the list."""
    codes = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        values = extra.get("enum_values") if isinstance(extra, dict) else None
        own = REQUIRED_CODES.get((model.__name__, name))
        if own is not None:
            codes[name] = own
        elif isinstance(values, list) and "+" not in values:
            codes[name] = frozenset(str(value) for value in values)
    return codes


@cache
def _aliases(model: type[BaseModel]) -> dict[str, str]:
    return {name: field.alias or name for name, field in model.model_fields.items()}


def _walk(model: BaseModel, path: str) -> Iterator[Fault]:
    """What the models leave out: required codes, and empty arrays and objects (FHIR R4B, JSON 2.6.2)."""
    kind = type(model)
    codes, aliases = _codes(kind), _aliases(kind)
    present = model.model_fields_set - {"resource_type"}
    if not present:
        yield Fault(path, "must not be empty")
    for name in sorted(present):
        value = getattr(model, name)
        if value is None:
            continue
        here = f"{path}.{aliases[name]}"
        allowed = codes.get(name)
        if allowed is not None and isinstance(value, str) and value not in allowed:
            yield Fault(here, "not one of the codes that are allowed here")
        elif isinstance(value, BaseModel):
            yield from _walk(value, here)
        elif isinstance(value, list):
            if not value:
                yield Fault(here, "must not be empty")
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _walk(item, f"{here}[{index}]")
