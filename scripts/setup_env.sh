# Sourced by quickstart.sh and test.sh from the repository root: makes .venv and installs the
# package (with the extra named in $1, if any), exactly the versions of constraints.txt.

PATH="$PATH:/usr/sbin:/sbin"  # ldconfig, for other users than root

say() { printf '\n== %s\n' "$*"; }

# for open3d, and programs given as NAME=PACKAGE
need_debian_packages() {
    local missing=() program
    for program in "$@"; do
        command -v "${program%=*}" >/dev/null || missing+=("${program#*=}")
    done
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    local library
    for library in libusb-1.0.so.0=libusb-1.0-0 libgomp.so.1=libgomp1 libGL.so.1=libgl1 \
        libEGL.so.1=libegl1 libX11.so.6=libx11-6 libudev.so.1=libudev1 libvulkan.so.1=libvulkan1; do
        ldconfig -p | grep -qF "${library%=*}" || missing+=("${library#*=}")  # for open3d
    done
    compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || missing+=(mesa-vulkan-drivers)
    [ ${#missing[@]} -eq 0 ] && return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
    if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
        say "Debian packages: ${missing[*]}"
        "${as_root[@]}" apt-get update -qq
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        echo "error: please run: sudo apt-get install ${missing[*]}" >&2
        exit 2
    fi
}

install_autolabel() {
    local extra="${1:-}"
    need_debian_packages
    [ -x .venv/bin/python ] || python3 -m venv .venv
    local extras="$extra"
    if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
        if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
            say "torch for CUDA"
            extras="${extra:+$extra,}gpu"
            .venv/bin/pip install -q -c constraints.txt torch
        else
            say "torch for CPU"
            # the +cpu build is preferred to the registry's wherever this index can be reached
            .venv/bin/pip install -q -c constraints.txt torch --retries 0 --timeout 15 \
                --extra-index-url https://download.pytorch.org/whl/cpu
        fi
    fi
    say "effocc-autolabel${extras:+[$extras]}"
    .venv/bin/pip install -q -c constraints.txt -e ".${extras:+[$extras]}"
    case ",$extras," in *,waymo,*)
        # its package asks for TensorFlow and an old numpy; only its protobuf modules are used
        .venv/bin/pip install -q --no-deps -c constraints.txt waymo-open-dataset-tf-2-12-0 ;;
    esac
}
