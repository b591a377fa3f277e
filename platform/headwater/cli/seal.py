from headwater.cli.options import ProjectOption
def seal(project: ProjectOption = None) -> None:
    """x seal"""
