from maskdrop.config_file import ConfigurationError as ConfigurationError
from maskdrop.decoding import BrokenPicture as BrokenPicture
from maskdrop.model.errors import WeightsError as WeightsError
from maskdrop.parse import Parsed as Parsed
from maskdrop.parse import Parser as Parser

__version__: str
