"""From IR to addresses of functions, with llvmlite alone.

Owns the choice of instructions for this machine, compilation and loading. Does not know what the program computes.
"""

import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from llmcli_kernels.int4_linear.integer.object_cache import cached

# Besides these, AVX2 machines have all of x86-64-v3 by LLVM's definition.
AVX512_FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512vnni", "f16c", "fma")
AVX2_FEATURES = ("avx2", "f16c", "fma", "bmi2")


def machines_here() -> list[str]:
    """The kernels that this processor can run, best first: "avx512vnni", "avx2"."""
    features = llvm.get_host_cpu_features()
    wanted = {"avx512vnni": AVX512_FEATURES, "avx2": AVX2_FEATURES}
    return [name for name, needed in wanted.items() if all(features.get(feature) for feature in needed)]


class Compiled:
    """A loaded module; its code lives as long as this object.

    Args:
        machine_name: one of `machines_here`.
        variant: names this program among those of the same source.
        build: makes the module's text; not called where the cache has the object.
        folder: of the cache, or None.
    """

    def __init__(
        self, machine_name: str, variant: str, build: Callable[[], str], folder: Path | None
    ) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        if machine_name == "avx2":
            cpu, features = "x86-64-v3", ""
        else:
            cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)

        def compile_module() -> bytes:
            module = llvm.parse_assembly(build())
            module.verify()
            builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
            builder.getModulePassManager().run(module, builder)
            return machine.emit_object(module)

        key = "\n".join((_source_digest(), llvmlite.__version__, target.triple, cpu, features, variant))
        code = cached(folder, key, compile_module)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        return self._engine.get_function_address(name)


def _source_digest() -> str:
    """Of all modules of this package: every change of the generator is another version."""
    sources = sorted(
        (entry.name, entry) for entry in files(__package__).iterdir() if entry.name.endswith(".py")
    )
    return hashlib.sha256(b"".join(entry.read_bytes() for _, entry in sources)).hexdigest()
