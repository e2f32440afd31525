"""Typed configuration: schema, composition from named parts, overrides, protocol id."""

from mhc_bench.config.identity import cost_id, protocol_id
from mhc_bench.config.load import (
    check_same_run,
    load_run_config,
    load_suite,
    run_configs,
    run_folder,
    save_run_config,
)
from mhc_bench.config.parts import GROUPS, part_names
from mhc_bench.config.schema import (
    DataConfig,
    EvaluationConfig,
    HardwareConfig,
    InitialisationConfig,
    LoggerConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    Protocol,
    RunConfig,
    ScheduleConfig,
    SuiteConfig,
    TextConfig,
    TokenizerConfig,
    TrainingConfig,
    VariantConfig,
    WorldConfig,
)
from mhc_bench.config.typed import plain

__all__ = [
    "GROUPS",
    "DataConfig",
    "EvaluationConfig",
    "HardwareConfig",
    "InitialisationConfig",
    "LoggerConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Protocol",
    "RunConfig",
    "ScheduleConfig",
    "SuiteConfig",
    "TextConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "VariantConfig",
    "WorldConfig",
    "check_same_run",
    "cost_id",
    "load_run_config",
    "load_suite",
    "part_names",
    "plain",
    "protocol_id",
    "run_configs",
    "run_folder",
    "save_run_config",
]
