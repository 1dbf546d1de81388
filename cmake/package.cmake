# The Debian package: `make package` writes build/pare_VERSION_ARCH.deb with the program, its manual page, the service and
# its settings. What it depends on is read from the program itself (dpkg-shlibdeps).
install(TARGETS pare RUNTIME DESTINATION usr/bin COMPONENT package EXCLUDE_FROM_ALL)
install(FILES docs/pare.1 DESTINATION usr/share/man/man1 COMPONENT package EXCLUDE_FROM_ALL)
install(FILES deploy/pare.service DESTINATION usr/lib/systemd/system COMPONENT package EXCLUDE_FROM_ALL)
install(FILES deploy/pare.yaml DESTINATION etc/pare COMPONENT package EXCLUDE_FROM_ALL)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL package)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT) # pare_VERSION_ARCH.deb
set(CPACK_DEBIAN_PACKAGE_PACKAGE_NAME pare) # of the component, which is called package
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS ca-certificates)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/deploy/debian/postinst;${CMAKE_SOURCE_DIR}/deploy/debian/prerm;${CMAKE_SOURCE_DIR}/deploy/debian/conffiles)
set(CPACK_PACKAGE_CONTACT "pare <pare@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "gateway and engine for language models in one program")
set(CPACK_PACKAGE_DESCRIPTION "An OpenAI- and Anthropic-compatible gateway with an exact cache, budgets and a ledger,\nand an inference engine for GGUF models on CPUs.")
include(CPack)
