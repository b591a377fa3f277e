from headwater.cli.options import ProjectOption
def init(project: ProjectOption = None) -> None:
    """x init"""
