"""The names that bundles may use, and within them those that they may not."""

import sys


def _words(text: str) -> list[str]:
    return text.split()


# Whole rooms: any name below is allowed, as far as NEVER, DENIED and the parts of the name permit.
ROOMS = frozenset(
    _words(
        """
        monai.apps.deepedit monai.apps.deepgrow monai.apps.detection monai.apps.generation monai.apps.nuclick
        monai.apps.pathology monai.apps.reconstruction monai.apps.vista3d monai.config.type_definitions
        monai.data monai.engines monai.handlers monai.inferers monai.losses monai.metrics monai.networks
        monai.optimizers monai.transforms monai.utils.enums monai.visualize monai_ext.base monai_ext.engines
        monai_ext.handlers monai_ext.inferers monai_ext.losses monai_ext.manifests monai_ext.metrics
        monai_ext.networks monai_ext.outputs monai_ext.transforms monai_ext.volumes torch.amp
        torch.backends.cudnn torch.nn torch.optim torch.utils.data torch.cuda.amp torch.linalg ignite.engine
        ignite.handlers ignite.metrics einops math numpy.linalg numpy.random scipy.ndimage
        """
    )
)

_OF_OS = """
    environ getenv listdir makedirs cpu_count getcwd sep linesep fspath path.join path.exists path.basename
    path.dirname path.isfile path.isdir path.abspath path.realpath path.relpath path.splitext path.normpath
    path.expanduser path.getsize path.sep path.commonpath
"""
_OF_TORCH = """
    __version__ device Tensor tensor zeros ones full empty eye arange linspace zeros_like ones_like full_like
    rand randn randint randperm as_tensor from_numpy stack cat concat split chunk argmax argmin sum mean std var
    max min abs exp log sqrt softmax sigmoid relu tanh clamp where flip permute transpose squeeze unsqueeze
    matmul round floor ceil isnan isfinite any all topk sort cumsum einsum logical_and logical_or logical_not
    no_grad inference_mode set_grad_enabled manual_seed initial_seed get_default_dtype is_tensor numel
    broadcast_to meshgrid nan_to_num count_nonzero bincount unique norm compile autocast channels_last
    channels_last_3d contiguous_format preserve_format Generator Size set_float32_matmul_precision
    set_num_threads get_num_threads nonzero rot90 roll square pow float float16 float32 float64 half double
    bfloat16 int int8 int16 int32 int64 long short uint8 bool complex64 cuda.is_available cuda.device_count
    cuda.current_device cuda.set_device cuda.empty_cache cuda.synchronize cuda.is_bf16_supported
    cuda.get_device_name cuda.max_memory_allocated distributed.init_process_group
    distributed.destroy_process_group distributed.is_available distributed.barrier distributed.is_initialized
    distributed.get_rank distributed.get_world_size backends.mps.is_available load save
"""
_OF_NUMPY = """
    __version__ array asarray ascontiguousarray zeros ones full empty eye arange linspace zeros_like ones_like
    full_like stack concatenate vstack hstack split argmax argmin argsort sort sum mean median std var max min
    amax amin abs exp log log2 log10 sqrt square power clip where flip rot90 roll transpose moveaxis expand_dims
    squeeze reshape ravel unique round rint floor ceil isnan isfinite any all cumsum diff dot matmul cross outer
    percentile quantile histogram pi inf nan newaxis prod ceil sign mod float16 float32 float64 int8 int16 int32
    int64 uint8 uint16 uint32 uint64 bool_ dtype ndarray count_nonzero nonzero bincount meshgrid pad tile repeat
"""
_OF_MONAI = """
    __version__ utils.set_determinism utils.get_seed utils.first utils.ensure_tuple utils.ensure_tuple_rep
    utils.ensure_tuple_size utils.fall_back_tuple utils.ImageMetaKey utils.misc.ImageMetaKey
    utils.misc.set_determinism utils.is_scalar utils.convert_to_tensor utils.convert_to_numpy
    utils.convert_data_type utils.type_conversion utils.CommonKeys utils.BlendMode utils.PytorchPadMode
    utils.NumpyPadMode utils.GridSampleMode utils.InterpolateMode utils.GridSamplePadMode utils.UpsampleMode
    utils.MetricReduction utils.LossReduction utils.DiceCEReduction utils.Weight utils.Average utils.ForwardMode
    utils.Method utils.ProbMapKeys utils.HoVerNetMode utils.HoVerNetBranch utils.GridPatchSort utils.PostFix
    utils.TraceKeys utils.MetaKeys utils.SpaceKeys utils.TransformBackends config.KeysCollection
    config.print_config config.IgniteInfo
"""

# One name each; attributes below it are judged like those of any value.
NAMES = frozenset(
    [f"os.{name}" for name in _words(_OF_OS)]
    + [f"torch.{name}" for name in _words(_OF_TORCH)]
    + [f"numpy.{name}" for name in _words(_OF_NUMPY)]
    + [f"monai.{name}" for name in _words(_OF_MONAI)]
    + _words(
        """
        monai_ext.bundle_path monai_ext.manifest_path monai_ext.__version__ pathlib.Path pathlib.PurePath
        glob.glob glob.iglob json.dumps json.loads re.compile re.match re.search re.sub re.split re.findall
        re.fullmatch datetime.datetime datetime.date datetime.timedelta time.time time.strftime
        time.perf_counter copy.copy copy.deepcopy functools.partial functools.reduce itertools.chain
        itertools.product itertools.repeat itertools.islice itertools.count itertools.zip_longest
        itertools.accumulate itertools.combinations itertools.permutations collections.OrderedDict
        collections.defaultdict collections.Counter collections.deque random.seed random.random random.randint
        random.choice random.sample random.shuffle random.uniform warnings.filterwarnings warnings.simplefilter
        logging.getLogger nibabel.load nibabel.__version__ sys.stdout sys.stderr sys.version_info
        """
    )
)

# Inside the rooms: what fetches, runs or loads code, or finds it by a name given as text.
DENIED = {
    **dict.fromkeys(
        ["monai.handlers.MLFlowHandler", "monai.handlers.mlflow_handler", "monai.data.CSVDataset"],
        "it may talk to a server",
    ),
    **dict.fromkeys(
        ["monai.data.CSVIterableDataset", "monai.data.iterable_dataset.CSVIterableDataset"], "it may fetch"
    ),
    "monai.data.dataset.CSVDataset": "it may fetch",
    **dict.fromkeys(
        [
            "monai.losses.PerceptualLoss",
            "monai.losses.perceptual",
            "monai.networks.blocks.TextEncoder",
            "monai.networks.blocks.text_embedding",
            "monai.networks.nets.get_pretrained_resnet_medicalnet",
            "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet",
            "monai.apps.pathology.losses.hovernet_loss.PerceptualLoss",
        ],
        "it fetches weights or code",
    ),
    **dict.fromkeys(
        ["monai.networks.trt_compile", "monai.networks.trt_compiler", "monai.networks.trt_wrapper"],
        "it builds and loads machine code",
    ),
    **dict.fromkeys(["monai.networks.utils.convert_to_trt", "monai.networks.convert_to_trt"], "it builds machine code"),
    **dict.fromkeys(["monai.handlers.TrtHandler", "monai.handlers.trt_handler"], "it builds and loads machine code"),
    **dict.fromkeys(
        ["monai.networks.nets.FLEXUNET_BACKBONE", "monai.networks.nets.FlexUNetEncoderRegister"],
        "it finds classes by a name given as text",
    ),
    "monai.networks.nets.flexible_unet.FLEXUNET_BACKBONE": "it finds classes by a name given as text",
    "monai.networks.nets.flexible_unet.FlexUNetEncoderRegister": "it finds classes by a name given as text",
    "monai.config.deviceconfig": "it asks the system",
    "pathlib.Path.replace": "it moves a file over another",
    **dict.fromkeys(
        [f"os.environ.{name}" for name in _words("update setdefault pop popitem clear copy items values")],
        "more of the environment than reading one variable",
    ),
    **dict.fromkeys(
        [
            *("ignite.handlers.wandb_logger", "ignite.handlers.clearml_logger", "ignite.handlers.neptune_logger"),
            *("ignite.handlers.mlflow_logger", "ignite.handlers.polyaxon_logger", "ignite.handlers.visdom_logger"),
            *("ignite.handlers.WandBLogger", "ignite.handlers.ClearMLLogger", "ignite.handlers.NeptuneLogger"),
            *("ignite.handlers.MLflowLogger", "ignite.handlers.PolyaxonLogger", "ignite.handlers.VisdomLogger"),
            *("ignite.handlers.ClearMLSaver", "ignite.handlers.NeptuneSaver"),
        ],
        "it talks to a server",
    ),
    "torch.utils.data.datapipes": "it opens, unpacks and fetches",
    "monai.networks.blocks.fcn.models": "it leads to another library",
}

# Says more than "not on the list" where it is known what a name does.
KNOWN_BAD = {
    "os": "it reaches the system",
    "subprocess": "it starts programs",
    "shutil": "it copies and deletes files",
    "importlib": "it imports code by name",
    "runpy": "it runs code",
    "builtins": "it reaches eval, exec and open",
    "pickle": "it runs what a pickle says",
    "joblib": "it runs what a pickle says",
    "marshal": "it loads code",
    "ctypes": "it calls machine code",
    "socket": "it opens connections",
    "urllib": "it fetches",
    "requests": "it fetches",
    "http": "it fetches",
    "huggingface_hub": "it fetches",
    "torch.hub": "it fetches and runs code",
    "torch.jit": "TorchScript is code",
    "torch.package": "it loads code",
    "torch.utils.cpp_extension": "it compiles and loads code",
    "torch.utils.model_zoo": "it fetches",
    "torch.multiprocessing": "it starts processes",
    "monai.bundle": "it fetches and runs bundles",
    "monai.apps": "parts of it fetch or start programs",
    "monai.auto3dseg": "it starts programs",
    "monai.utils.module": "it imports code by name",
    "monai.utils.optional_import": "it imports code by name",
    "monai.fl": "it talks to servers",
    "sys": "it reaches the interpreter",
}

SAFE_BUILTINS = frozenset(
    _words(
        """
        abs all any bool bytes complex dict divmod enumerate filter float frozenset hash hex int isinstance
        issubclass iter len list map max min next object ord pow print range repr reversed round set slice
        sorted str sum tuple zip ValueError KeyError RuntimeError Exception NotImplemented Ellipsis True False
        None
        """
    )
)

# Attributes that are never asked of any value, for through them everything is reached.
NEVER = frozenset(
    _words(
        """
        system popen popen2 popen3 popen4 Popen check_call run_path run_module urlopen urlretrieve import_module
        load_module exec_module find_spec spawn spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe
        posix_spawn posix_spawnp execl execle execlp execlpe execv execve execvp execvpe fork forkpty startfile
        exec open open_code loads load loadtxt genfromtxt fromfile fromregex memmap dump dumps unpickle
        Unpickler Pickler Trace gi_frame gi_code gi_yieldfrom cr_frame cr_code ag_frame ag_code f_back f_globals
        f_locals f_builtins f_code tb_frame tb_next tb_lasti co_code co_consts func_globals func_code mro
        write_text write_bytes unlink link_to rmdir rmtree removedirs symlink_to hardlink_to chmod chown lchmod touch
        rename renames load_library register_class optional_import instantiate get_parsed_content
        load_state_dict_from_url load_url from_pretrained push_to_hub add_safe_globals eval_expr format_map
        extractall breakpoint set_trace putenv unsetenv ForkingPickler DataFrame CodeType FunctionType
        attrgetter methodcaller itemgetter
        make_dataclass CompilationUnit compile_command ConfigParser ConfigExpression ConfigItem ConfigWorkflow
        download_url download_and_extract hf_hub_download snapshot_download run_cmd run_and_read_all collect_env
        PackageImporter PackageExporter tofile distributed
        """
    )
)

# Modules of Python whose names are also those of harmless methods, or that do no harm themselves.
_HARMLESS = frozenset(
    _words(
        """
        copy select random signal statistics math time trace token tokenize array bisect calendar cmath colorsys
        decimal fractions heapq numbers struct string textwrap abc enum io
        """
    )
)
_ALIASES = frozenset(
    _words(
        """
        np nib sitk itk pd tf jit hub cpp_extension model_zoo ctypeslib requests yaml PIL joblib dill idist
        plt matplotlib python_multiprocessing dist torchvision_models torchvision open_clip pydicom
        safetensors PILImage nrrd SimpleITK blosc2 scipy transformers
        """
    )
)
MODULES = (frozenset(sys.stdlib_module_names) - _HARMLESS) | _ALIASES
