"""What `import rayrnn` offers, and that it costs nothing until it is used."""

import subprocess
import sys

import pytest

import rayrnn
import rayrnn.training.driver


def test_importing_rayrnn_loads_nothing_heavy() -> None:
    program = (
        "import sys, rayrnn\n"
        "names = dir(rayrnn)\n"
        "print(sorted({'torch', 'ray', 'pydantic', 'numpy', 'pyarrow'} & set(sys.modules)), *names)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == "[]"
    assert {"train", "load_recipe", "open_run", "generate", "evaluate", "predict"} <= set(said.split())


@pytest.mark.parametrize("name", rayrnn.__all__)
def test_every_name_is_there(name: str) -> None:
    assert callable(getattr(rayrnn, name))


def test_a_name_is_the_one_of_its_module() -> None:
    assert rayrnn.train is rayrnn.training.driver.train


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'rayrnn' has no attribute 'trian'"):
        rayrnn.trian  # noqa: B018
