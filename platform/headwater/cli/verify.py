from headwater.cli.options import ProjectOption
def verify(project: ProjectOption = None) -> None:
    """x verify"""
