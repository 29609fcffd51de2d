"""From a teacher's settings to the teacher: the only place that knows every kind."""

from __future__ import annotations

from cloud_hub.errors import NotFound
from cloud_hub.releases import Releases
from cloud_hub.teachers.port import Teacher, Unavailable
from cloud_hub.teachers.specs import TeacherSpec


class Hiring:
    """Makes teachers.

    Args:
        releases: packages that may be teachers.
    """

    def __init__(self, releases: Releases) -> None:
        self._releases = releases

    def __call__(self, name: str, spec: TeacherSpec) -> Teacher:
        """The teacher of these settings; raises `TeacherError`."""
        from cloud_hub.teachers.package import PackageTeacher  # loads ONNX Runtime, which a hub may never need

        try:
            package = self._releases.open(spec.release)
        except NotFound as error:
            raise Unavailable(str(error)) from error
        return PackageTeacher(package.root, spec)
