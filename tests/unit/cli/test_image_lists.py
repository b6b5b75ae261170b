"""Which images lists, Kubernetes manifests and compose files need."""

from collections.abc import Mapping

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from regproxy.cli.image_lists import Compose, compose_images, kubernetes_images, listed_images, with_tag

POD = {"containers": [{"name": "a", "image": "quay.io/team/app:1"}]}


def template(kind: str, spec: Mapping[str, object]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, "spec": {"template": {"spec": spec}}}


class TestLists:
    def test_a_list_has_one_image_a_line(self) -> None:
        """Comments, empty lines and repetitions count for nothing."""
        assert listed_images(["# all\n", "a/b:1 # why\n", "\n", "  c:2\n", "a/b:1\n"]) == ["a/b:1", "c:2"]

    @pytest.mark.parametrize(
        ("image", "expected"),
        [
            ("redis", "redis:latest"),
            ("quay.io/team/app", "quay.io/team/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("redis:7", "redis:7"),
            (f"redis@sha256:{'0' * 64}", f"redis@sha256:{'0' * 64}"),
        ],
    )
    def test_a_name_without_a_tag_means_latest(self, image: str, expected: str) -> None:
        """A port is no tag."""
        assert with_tag(image) == expected


class TestKubernetes:
    @pytest.mark.parametrize(
        "document",
        [
            pytest.param({"kind": "Pod", "spec": POD}, id="Pod"),
            pytest.param(template("Deployment", POD), id="Deployment"),
            pytest.param(template("DaemonSet", POD), id="DaemonSet"),
            pytest.param({"kind": "CronJob", "spec": {"jobTemplate": template("Job", POD)}}, id="CronJob"),
            pytest.param({"kind": "List", "items": [{"kind": "Pod", "spec": POD}]}, id="List"),
            pytest.param({"kind": "Rollout", "spec": {"strategy": {"canary": {"podTemplate": POD}}}}, id="custom"),
        ],
    )
    def test_a_pod_is_found_wherever_it_is(self, document: object) -> None:
        """In workloads of all kinds, lists, and resources that nobody here has heard of."""
        assert kubernetes_images(yaml.safe_dump(document)) == ["quay.io/team/app:1"]

    def test_all_containers_count_once_in_all_documents(self) -> None:
        """Init, ephemeral and image volumes too; what a status says of running ones does not."""
        spec = {
            "initContainers": [{"image": "init"}],
            "containers": [{"image": "app:1"}, {"image": "app:1"}, {"name": "none"}, None],
            "ephemeralContainers": [{"image": "debug:1"}],
            "volumes": [{"image": {"reference": "quay.io/team/model:1"}}, {"emptyDir": {}}],
        }
        pod = {"kind": "Pod", "spec": spec, "status": {"containerStatuses": [{"image": "other:1"}]}}

        found = kubernetes_images(f"{yaml.safe_dump(pod)}\n---\n---\n{yaml.safe_dump(template('Job', POD))}")
        assert found == ["app:1", "init:latest", "debug:1", "quay.io/team/model:1", "quay.io/team/app:1"]

    def test_a_bomb_of_anchors_costs_nothing(self) -> None:
        """Each anchor is looked at once, however often it is named."""
        lines = ["a0: &a0 {containers: [{image: 'x:1'}]}"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]

        assert kubernetes_images("\n".join(lines)) == ["x:1"]

    def test_what_is_no_yaml_is_said(self) -> None:
        """With where it is wrong."""
        with pytest.raises(ValueError, match=r"no YAML.*line 1"):
            kubernetes_images("{")

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["containers", "image", "spec", "volumes", "reference"]), inner)
            ),
            max_leaves=20,
        )
    )
    def test_any_document_is_read(self, document: object) -> None:
        """Whatever stands where a pod could be."""
        found = kubernetes_images(yaml.safe_dump(document))

        assert all(image.strip() == image and image for image in found)


class TestCompose:
    def test_services_have_images_or_are_built(self) -> None:
        """Variables come from the environment, or have defaults; merged services count as they are in the end."""
        text = """
        x-base: &base {image: "quay.io/team/base:${TAG:-1}"}
        services:
          web: {<<: *base, ports: ["80:80"]}
          db: {image: postgres, profiles: [full]}
          own: {build: .}
          both: {build: ., image: "ghcr.io/team/own:2"}
          empty: {image: "${NONE}"}
        """

        assert compose_images(text, {"TAG": "7"}) == Compose(
            ("quay.io/team/base:7", "postgres:latest", "ghcr.io/team/own:2"), ("own", "empty")
        )

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("services: {web: {image: '${TAG:?say which}'}}", "service web: TAG is not set: say which"),
            ("services: {web: {image: 'a:${TAG'}}", "brace is not closed"),
            ("version: 3", "no services"),
            ("[", "no YAML"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, words: str) -> None:
        """By the name of the service."""
        with pytest.raises(ValueError, match=words):
            compose_images(text, {})
