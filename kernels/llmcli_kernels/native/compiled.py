"""From IR to addresses of functions, with llvmlite alone.

Owns compilation and loading. Does not know what the code computes.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from llmcli_kernels.native.kernel import Kernel
from llmcli_kernels.native.machine import Machine
from llmcli_kernels.native.object_cache import cached

SYMBOLS = ("sched_yield",)  # of the C library, for generated code to call


class Compiled:
    """A loaded module; its code lives as long as this object.

    Args:
        variant: what distinguishes this code, the version of its source included.
        emit: adds the functions to a module; not called where the cache has the object.
        folder: of the cache, or None.
    """

    def __init__(
        self, machine: Machine, variant: str, emit: Callable[[ir.Module], None], folder: Path | None
    ) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        for name in SYMBOLS:
            llvm.add_symbol(name, _address_in_libc(name))
        cpu, features = machine.cpu or llvm.get_host_cpu_name(), ""
        if machine.cpu is None:
            features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        options = target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)

        def compile_module() -> bytes:
            source = ir.Module()
            emit(source)
            module = llvm.parse_assembly(str(source))
            module.verify()
            builder = llvm.create_pass_builder(options, llvm.create_pipeline_tuning_options(speed_level=2))
            builder.getModulePassManager().run(module, builder)
            return options.emit_object(module)

        key = "\n".join((llvmlite.__version__, target.triple, cpu, features, machine.name, variant))
        code = cached(folder, key, compile_module)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), options)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self._addresses: dict[str, int] = {}

    def address(self, name: str) -> int:
        if name not in self._addresses:  # LLVM takes 20 microseconds
            self._addresses[name] = self._engine.get_function_address(name)
        return self._addresses[name]

    def kernel(self, name: str) -> Kernel:
        return Kernel(name, self.address(f"{name}_pieces"), self.address(name))


def _address_in_libc(name: str) -> int:
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert address is not None
    return address
