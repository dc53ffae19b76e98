"""The sentences that describe a normal and an abnormal object, from a file that users may change."""

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from monai_ext.base import SettingError

STATES = ("normal", "abnormal")  # the columns of an anchor, in this order
_PUBLISHED = Path(__file__).with_name("published_prompts.json")


@dataclass(frozen=True)
class ClassPrompts:
    """The sentences of one class, each state at least one.

    Attributes:
        normal: sentences about the object as it should be.
        abnormal: sentences about the object with a lesion or defect.

    Raises:
        SettingError: a state without a sentence, or one that is empty or holds control characters.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]

    def __post_init__(self) -> None:
        for state in STATES:
            sentences = getattr(self, state)
            if isinstance(sentences, str) or not sentences or not all(_is_text(sentence) for sentence in sentences):
                raise SettingError(
                    f"prompts: {state} is {sentences!r}; give one sentence or more, "
                    "none of them empty or with control characters",
                    code="setting.prompt",
                )
            object.__setattr__(self, state, tuple(sentences))


@dataclass(frozen=True)
class ClassNames:
    """The classes of one data set.

    Attributes:
        domain: ``"Medical"`` or ``"Industrial"``, which chooses the blur of test maps and the image score.
        real_names: what the sentences call each class, in the order of the data set.
    """

    domain: str
    real_names: Mapping[str, str]


@dataclass(frozen=True)
class PromptTable:
    """States, templates and real names, from which :class:`ClassPrompts` are put together.

    As published (AA-CLIP, arXiv:2503.06661), a real name goes into a state, and that into a template; all
    templates of the first state come first.

    Attributes:
        states: for ``normal`` and ``abnormal`` phrases with one ``{}`` for the real name.
        templates: sentences with one ``{}`` for the phrase.
        datasets: the classes of each data set.
        special: real names that belong to no data set, such as ``object`` for any class.

    Raises:
        SettingError: something is missing, or a phrase has no ``{}``.
    """

    states: Mapping[str, Sequence[str]]
    templates: Sequence[str]
    datasets: Mapping[str, ClassNames] = field(default_factory=lambda: MappingProxyType({}))
    special: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if set(self.states) != set(STATES):
            raise SettingError(
                f"prompts: the states are {sorted(self.states)}; give phrases for normal and abnormal",
                code="setting.prompt",
            )
        for name, phrases in (*self.states.items(), ("templates", self.templates)):
            if isinstance(phrases, str) or not phrases or not all(_is_text(p) and p.count("{}") == 1 for p in phrases):
                raise SettingError(
                    f"prompts: {name} is {phrases!r}; give a list of phrases with one {{}} each, where the name goes",
                    code="setting.prompt",
                )

    @classmethod
    @cache
    def published(cls) -> Self:
        """Return the published table: industrial and medical data sets."""
        return cls.read(_PUBLISHED)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a JSON file with ``states``, ``templates`` and, if wanted, ``datasets`` and ``special_class``.

        Raises:
            SettingError: no such file, no JSON, or not of that form.
        """
        path = Path(path)
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise SettingError(
                f"{path.name}: no such file of prompts, or not readable; check the path", code="setting.prompt"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = str(error) if isinstance(error, SettingError) else f"not a JSON file of prompts ({error})"
            raise SettingError(
                f"{path.name}: {reason}; published_prompts.json of the package shows the form", code="setting.prompt"
            ) from error

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make a table of the content of a file, see :meth:`read`; other keys are left alone."""
        datasets = {
            name: ClassNames(
                str(entry["domain"]),
                {str(key): str(entry["classes"][key]) for key in entry.get("class_order", entry["classes"])},
            )
            for name, entry in content.get("datasets", {}).items()
        }
        return cls(
            {name: tuple(phrases) for name, phrases in content["states"].items()},
            tuple(content["templates"]),
            datasets,
            dict(content.get("special_class", {})),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a file that :meth:`read` takes."""
        return {
            "states": {name: list(self.states[name]) for name in STATES},
            "templates": list(self.templates),
            "special_class": dict(self.special),
            "datasets": {
                name: {
                    "domain": names.domain,
                    "classes": dict(names.real_names),
                    "class_order": list(names.real_names),
                }
                for name, names in self.datasets.items()
            },
        }

    def of_name(self, real_name: str) -> ClassPrompts:
        """Return the sentences about anything that has a name.

        Raises:
            SettingError: the name is empty or holds control characters.
        """
        if not _is_text(real_name):
            raise SettingError(f"prompts: {real_name!r} is no name; say what the image shows", code="setting.prompt")
        return ClassPrompts(*(self._sentences(state, real_name) for state in STATES))

    def of_class(self, name: str, dataset: str | None = None) -> ClassPrompts:
        """Return the sentences about a class of a data set, or about a special one.

        Args:
            name: the key of the class.
            dataset: may be left out where the key says enough.

        Raises:
            SettingError: an unknown class or data set, or a class that several data sets name differently.
        """
        return self.of_name(self.real_name(name, dataset))

    def real_name(self, name: str, dataset: str | None = None) -> str:
        """Return what the sentences call a class, see :meth:`of_class`."""
        if name in self.special:
            return self.special[name]
        among = self.datasets if dataset is None else {dataset: self._dataset(dataset)}
        found = {names.real_names[name] for names in among.values() if name in names.real_names}
        if len(found) == 1:
            return found.pop()
        if found:
            raise SettingError(
                f"class {name!r}: several data sets have it under different names ({', '.join(sorted(found))}); "
                "name the data set too",
                code="setting.class",
            )
        known = sorted({key for names in among.values() for key in names.real_names} | set(self.special))
        raise SettingError(
            f"class {name!r}: unknown{f' in {dataset}' if dataset else ''}; choose one of {', '.join(known)}, "
            "or add it to the file of prompts",
            code="setting.class",
        )

    def classes(self, dataset: str) -> tuple[str, ...]:
        """Return the classes of a data set, in its order."""
        return tuple(self._dataset(dataset).real_names)

    def domain(self, dataset: str) -> str:
        """Return the domain of a data set."""
        return self._dataset(dataset).domain

    def _dataset(self, dataset: str) -> ClassNames:
        if dataset not in self.datasets:
            raise SettingError(
                f"data set {dataset!r}: unknown; choose one of {', '.join(sorted(self.datasets))}, "
                "or add it to the file of prompts",
                code="setting.dataset",
            )
        return self.datasets[dataset]

    def _sentences(self, state: str, real_name: str) -> tuple[str, ...]:
        # Not str.format: a name may hold braces of its own.
        phrases = [phrase.replace("{}", real_name) for phrase in self.states[state]]
        return tuple(template.replace("{}", phrase) for phrase in phrases for template in self.templates)


def _is_text(value: Any) -> bool:
    # Control characters, halves of letters and line breaks are tokens to CLIP and nothing to people; so is a name
    # of letters without width alone.
    if not isinstance(value, str) or any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in value):
        return False
    return any(one.isprintable() and not one.isspace() for one in value)
