"""The Waymo Open Dataset (perception), read without TensorFlow.

Needs the ``waymo`` extra; for TFRecord files also the protobuf modules that Waymo publishes,
whose package asks for TensorFlow and numpy 1.23.5 and so must come without what it asks for:

    pip install -c constraints.txt -e '.[waymo]'
    pip install --no-deps waymo-open-dataset-tf-2-12-0==1.6.7

``pip check`` then names what that package lacks; none of it is used here.
"""
