# Toolchain file: builds for 64-bit ARM on another machine, and runs the tests under QEMU. tools/neon.sh uses it.
#
#   PARE_SYSROOT   a folder with usr/lib/aarch64-linux-gnu/ of the libraries that the compiler does not bring along
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(PARE_SYSROOT "" CACHE PATH "folder with libraries for 64-bit ARM")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES PARE_SYSROOT)
set(library_path ${PARE_SYSROOT}/usr/lib/aarch64-linux-gnu)

# Only what lies in the sysroot, never this machine's own libraries.
set(CMAKE_FIND_ROOT_PATH ${PARE_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${library_path}/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${PARE_SYSROOT})

# QEMU_CPU in the environment says which core it plays.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;/usr/aarch64-linux-gnu;-E;LD_LIBRARY_PATH=${library_path})
