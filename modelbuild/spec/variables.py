"""The environment variables with which a stage starts, besides those that name its inputs.

Nothing is inherited from the caller: an `OPENBLAS_CORETYPE` or `OMP_NUM_THREADS` that someone
exported changes the bits of a training. All of them follow from the recipe alone, so that they
are the same on every machine.
"""

from __future__ import annotations

from modelbuild.spec.recipe import Determinism, Device, Hardware

BOOTSTRAP_LINE = (
    "import os, sys, _frozen_importlib_external as loader; "
    "path = os.environ.get('MODELBUILD_ROOT', '/build') + '/runtime/bootstrap.py'; "
    "'modelbuild_bootstrap' not in sys.modules and os.path.isfile(path) and exec("
    "compile(loader.FileLoader('', path).get_data(path), path, 'exec'), "
    "{'__name__': 'modelbuild_bootstrap', '__file__': path})"
)
"""The one line of the `.pth` file by which every Python of an environment loads the bootstrap.

It stands there once and is run twice: `site` goes through a virtual environment's folder two
times. The bootstrap is compiled from source each time: bytecode beside it would be content that
nothing has hashed.
"""

_SYSTEM = {
    "HOME": "/tmp",  # noqa: S108  # private to the stage, and the one folder sure to be there
    "USER": "modelbuild",
    "LOGNAME": "modelbuild",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "TMPDIR": "/tmp",  # noqa: S108
    "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
    "PATH": "/build/env/bin:/usr/bin:/bin",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "SOURCE_DATE_EPOCH": "315532800",  # 1980-01-01, the oldest date that a zip file can hold
}

_PYTHON = {
    # Fixed rather than from the seed: another seed is to change the random numbers only.
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Without it a log that is a pipe shows nothing for the first 8 kB.
    "PYTHONUNBUFFERED": "1",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108
}

_OFFLINE = {
    "WANDB_MODE": "offline",
    "WANDB_DIR": "/tmp",  # noqa: S108
    "MLFLOW_TRACKING_URI": "/tmp/mlruns",  # noqa: S108
    "COMET_START_ONLINE": "0",
    "COMET_OFFLINE_DIRECTORY": "/tmp/comet",  # noqa: S108
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}

_THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
    "NPROC",  # what XLA takes for the number of processors
    "MODELBUILD_THREADS",
)

_THREADING = {
    # Without these two, more threads than cores are cut to the number of cores.
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    # How long libgomp's idle threads spin: its default cost a factor of 15 where a core was busy,
    # none at all a factor of 1.6 where none was. It changes no bits.
    "GOMP_SPINCOUNT": "10000",
    "KMP_DETERMINISTIC_REDUCTION": "TRUE",
}

_NUMPY_AVX2 = "AVX F16C FMA3 AVX2 X86_V3"
_NUMPY_AVX512 = "AVX512F AVX512CD AVX512_SKX X86_V4"
_NUMPY_NEWER = "AVX512_KNL AVX512_KNM AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
"""Names of numpy before 2.4 and since. It ignores, with an ImportWarning, those it does not know;
the bootstrap silences that."""

_INSTRUCTION_SETS = {
    "x86-64-v2": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": f"{_NUMPY_AVX2} {_NUMPY_AVX512} {_NUMPY_NEWER}",
        # The libm of glibc has paths of its own for these, and they round differently.
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v2",
    },
    "x86-64-v3": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2,STRICT",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": f"{_NUMPY_AVX512} {_NUMPY_NEWER}",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
    },
    "x86-64-v4": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_CBWR": "AVX512,STRICT",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX512",
        "OPENBLAS_CORETYPE": "SkylakeX",
        "NPY_DISABLE_CPU_FEATURES": _NUMPY_NEWER,
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v4",
    },
    "native": {
        "MKL_CBWR": "AUTO",  # the fastest path, but the same one wherever an array lies in memory
    },
}

_INDUCTOR = {
    "TORCHINDUCTOR_DETERMINISTIC": "1",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
    "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
    "NUMBA_CACHE_DIR": "/tmp/numba",  # noqa: S108
}

_PROCESSES = {
    # All processes of a stage are on one machine, and at isolation `full` there is no other.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}

_CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}

_CUDA = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUDA_CACHE_PATH": "/tmp/cuda",  # noqa: S108
    "NCCL_ALGO": "Ring",
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_CUDNN_DETERMINISTIC": "1",
}


def stage_variables(hardware: Hardware, determinism: Determinism) -> dict[str, str]:
    """All of them, by name, sorted. Which GPUs a stage sees is up to the sandbox."""
    threads = dict.fromkeys(_THREAD_COUNTS, str(hardware.threads))
    if hardware.device is Device.CUDA:
        device = dict(_CUDA)
        if determinism.tf32 == "false":
            device["NVIDIA_TF32_OVERRIDE"] = "0"
    else:
        device = _CPU_ONLY
    ours = {
        "MODELBUILD_SEED": str(determinism.seed),
        "MODELBUILD_MKL": "unchanged" if hardware.cpu == "native" else hardware.mkl,
        "MODELBUILD_ALLOW": ",".join(sorted(determinism.allow)),
    }
    groups = (_SYSTEM, _PYTHON, _OFFLINE, threads, _THREADING, _INDUCTOR, _PROCESSES, device, ours)
    variables = dict(_INSTRUCTION_SETS[hardware.cpu])
    for group in groups:
        variables.update(group)
    return dict(sorted(variables.items()))
