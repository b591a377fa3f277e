from headwater.cli.options import ProjectOption
def status(project: ProjectOption = None) -> None:
    """x status"""
