from maskdrop.config_file import ConfigurationError as ConfigurationError
from maskdrop.model.errors import WeightsError as WeightsError
from maskdrop.parse import Parsed as Parsed
from maskdrop.parse import Parser as Parser
from maskdrop.preprocess import BrokenPicture as BrokenPicture

__version__: str
