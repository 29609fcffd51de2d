"""From a teacher's settings to the teacher: the only place that knows every kind."""

from __future__ import annotations

from cloud_hub.errors import NotFound
from cloud_hub.releases import Releases
from cloud_hub.teachers.keys import Keys
from cloud_hub.teachers.oip import OipTeacher
from cloud_hub.teachers.openai import OpenAiTeacher
from cloud_hub.teachers.paid import Till
from cloud_hub.teachers.port import Teacher, Unavailable
from cloud_hub.teachers.specs import MachineSpec, OipSpec, OpenAiSpec, PackageSpec
from cloud_hub.teachers.spending import Spending
from edgeloop.insights.calibration import Calibration


class Hiring:
    """Makes teachers.

    Args:
        releases: packages that may be teachers.
        keys: of teachers elsewhere.
        spending: pays them.
    """

    def __init__(self, releases: Releases, keys: Keys, spending: Spending) -> None:
        self._releases, self._keys, self._spending = releases, keys, spending

    def __call__(self, name: str, spec: MachineSpec) -> Teacher:
        """The teacher of these settings; raises `TeacherError`."""
        match spec:
            case PackageSpec():
                return self._package(spec)
            case OipSpec():
                return OipTeacher(spec, self._keys, self._till(name, spec))
            case OpenAiSpec():
                return OpenAiTeacher(spec, self._keys, self._till(name, spec))

    def _package(self, spec: PackageSpec) -> Teacher:
        from cloud_hub.teachers.package import PackageTeacher  # loads ONNX Runtime, which a hub may never need

        try:
            package = self._releases.open(spec.release)
        except NotFound as error:
            raise Unavailable(str(error)) from error
        return PackageTeacher(package.root, spec, self._calibration(spec.release))

    def _calibration(self, release: str) -> Calibration | None:
        profile = self._releases.profile(release)
        return None if profile is None else profile.calibration

    def _till(self, name: str, spec: OipSpec | OpenAiSpec) -> Till:
        return Till(name, self._spending, spec.spend_per_day, spec.spend_per_month)
